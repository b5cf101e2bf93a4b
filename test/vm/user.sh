# user.sh is what an ordinary user does in a session of his own, with the
# cgroups that systemd delegates to him.
set -eu
kiste version
test "$(id -u)" = 1000
box=$(mktemp -d)
mkdir "$box/bin"
cp /payload/bin/busybox "$box/bin/busybox"
for applet in sh id cat true ls; do ln -s busybox "$box/bin/$applet"; done
chmod 755 "$box"
crate() { kiste run --rm "$@"; }

echo "- root inside is this user outside"
test "$(crate rootfs:"$box" id -u)" = 0
crate rootfs:"$box" cat /proc/self/uid_map | { read -r inside outside size; test "$inside $outside $size" = "0 1000 1"; }
crate -v "$HOME":/home rootfs:"$box" sh -c 'echo x > /home/mine'
test "$(stat -c %u "$HOME/mine")" = 1000

echo "- limits, in the delegated cgroup"
test "$(crate -m 64m rootfs:"$box" cat /sys/fs/cgroup/memory.max)" = 67108864

echo "- what /proc tells of a container, and what it may not do"
cd /payload/tests/container/process
KISTE_BUILT=/payload/bin/kiste KISTE_REQUIRE=userns ./test -test.short -test.run 'Posture|HostsBinary|ReleaseAgent|GroupsAreReadOnly'
cd /

echo "- nothing is left"
test -z "$(kiste ps -aq)"
echo done
