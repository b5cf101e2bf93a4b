# guest.sh runs inside the virtual machine, as root, from /payload: every test
# binary in its own directory, then the scripts as root and as the user ann.
# It exits with the number of what failed.
export KISTE_BUILT=/payload/bin/kiste HOME=/root PATH=/payload/bin:/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp
failed=0
echo "kernel $(uname -r), $(stat -f -c %T /sys/fs/cgroup), $(systemctl --version | head -n 1)"
for test in $(cd /payload/tests && find . -name test -type f | sort); do
	name=${test#./}
	name=${name%/test}
	cd "/payload/tests/$name"
	before=$(date +%s)
	if ! KISTE_REQUIRE=root,cgroup2,userns timeout 240 ./test -test.short -test.timeout 230s -test.v=false; then
		echo "--- FAIL: $name"
		failed=$((failed + 1))
	fi
	echo "=== root: $name, $(($(date +%s) - before)) s"
done
run() {
	echo "=== $1"
	shift
	if ! timeout 120 "$@"; then
		echo "--- FAIL: $*"
		failed=$((failed + 1))
	fi
}
[ -e /payload/root.sh ] && run "root: root.sh" sh /payload/root.sh
if [ -e /payload/user.sh ]; then
	run "user: user.sh" runuser -u ann -- env XDG_RUNTIME_DIR=/run/user/1000 \
		DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus PATH="$PATH" \
		systemd-run --quiet --user --wait --pipe --collect -p Delegate=yes -E PATH="$PATH" -E HOME=/home/ann sh /payload/user.sh
fi
if [ -e /payload/systemd.sh ]; then
	run "root: systemd.sh" sh /payload/systemd.sh
	run "user: systemd.sh" runuser -u ann -- env XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/ann PATH="$PATH" sh /payload/systemd.sh
fi
exit $failed
