# quota.sh has volumes with a limit, for which the kernel of the tests' own machine
# may lack the quotas.
set -eu
cd /tmp
echo "- a limit of what a volume takes"
modprobe loop
modprobe quota_v2
/payload/engine.test -test.v -test.run '^TestVolumeLimit$' > /tmp/limit || { cat /tmp/limit; exit 1; }
grep -q '^--- PASS' /tmp/limit || { cat /tmp/limit; exit 1; }
echo done
