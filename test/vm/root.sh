# root.sh is what a person does as root on a Debian 12 with systemd.
set -eu
kiste version
kiste help > /dev/null
kiste run --rm embedded:hello
box=$(mktemp -d)
mkdir "$box/bin"
cp /payload/bin/busybox "$box/bin/busybox"
for applet in sh id cat true sleep dd echo ls wc; do ln -s busybox "$box/bin/$applet"; done
chmod 755 "$box"
crate() { kiste run --rm "$@"; }

echo "- root inside is nobody outside"
test "$(crate rootfs:"$box" id -u)" = 0
crate rootfs:"$box" cat /proc/self/uid_map | { read -r inside outside size; test "$inside" = 0 && test "$outside" -ge 1000000 && test "$size" = 65536; }

echo "- a bind keeps its owners"
shared=$(mktemp -d)
chown 1000:1000 "$shared"
test "$(crate -v "$shared":/shared rootfs:"$box" ls -lnd /shared | { read -r _ _ uid _; echo "$uid"; })" = 1000
crate -v "$shared":/shared -u 1000:1000 rootfs:"$box" sh -c 'echo x > /shared/mine'
test "$(stat -c %u:%g "$shared/mine")" = 1000:1000

echo "- --init, from a file system that the kernel may not map"
test "$(crate --init rootfs:"$box" sh -c 'cat /proc/1/comm; cat /proc/self/uid_map' | wc -l)" = 2
test "$(crate --init rootfs:"$box" cat /proc/1/comm)" = docker-init

echo "- limits of the unified hierarchy"
crate -m 64m --pids-limit 20 --cpus 0.5 rootfs:"$box" sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max' | {
	read -r memory; read -r pids; read -r cpu
	test "$memory" = 67108864 && test "$pids" = 20 && test "$cpu" = "50000 100000"
}
code=0
crate -m 16m rootfs:"$box" sh -c 'dd if=/dev/zero of=/dev/shm/big bs=1M count=40' 2> /dev/null || code=$?
test "$code" = 137

echo "- exit codes"
code=0; crate rootfs:"$box" sh -c 'exit 3' || code=$?; test "$code" = 3
code=0; crate rootfs:"$box" no-such-program 2> /dev/null || code=$?; test "$code" = 127

echo "- nothing is left"
test -z "$(kiste ps -aq)"
test -z "$(find /run/kiste/containers /var/lib/kiste/containers /run/kiste/ids -mindepth 1)"
test -z "$(find /sys/fs/cgroup/kiste -mindepth 1 -type d -name "[0-9a-f]*" 2> /dev/null)"
echo done
