# quota.sh has volumes with a limit, and volumes of a server of NFS: kernels of
# containers' hosts can both, that of the tests' machine may not.
set -eu
cd /tmp
echo "- a limit of what a volume takes"
modprobe loop
modprobe quota_v2
/payload/engine.test -test.v -test.run '^TestVolumeLimit$' > /tmp/limit || { cat /tmp/limit; exit 1; }
grep -q '^--- PASS' /tmp/limit || { cat /tmp/limit; exit 1; }

echo "- a volume of a server"
box=$(mktemp -d)
mkdir "$box/bin"
cp /payload/bin/busybox "$box/bin/busybox"
for applet in sh cat echo; do ln -s busybox "$box/bin/$applet"; done
chmod 755 "$box"
export KISTE_LIB=/payload/nfs-lib
ip link set lo up
mkdir -p /payload/share
chmod 1777 /payload/share
echo "/payload/share 127.0.0.1(rw,no_root_squash,insecure,fsid=0,no_subtree_check)" > /etc/exports
modprobe nfsd
mount -t nfsd nfsd /proc/fs/nfsd 2> /dev/null || true
exportfs -ra
rpc.nfsd -N 3 2
kiste volume create -o type=nfs4 -o device=:/ -o o=addr=127.0.0.1,rw shared > /dev/null
kiste run --rm -v shared:/shared:noidmap --userns host rootfs:"$box" sh -c 'echo from a container > /shared/file'
test "$(cat /payload/share/file)" = "from a container"
! grep -q ' nfs4 ' /proc/mounts || { echo "it is mounted still:"; grep ' nfs4 ' /proc/mounts; exit 1; }
kiste volume rm shared > /dev/null
rpc.nfsd 0
exportfs -ua
echo done
