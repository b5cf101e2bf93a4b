# podman.sh is Podman of an ordinary user with kiste-runtime, in a session with
# systemd's cgroups delegated: what a host without them cannot show.
set -u
test "$(id -u)" = 1000
work=$(mktemp -d)
mkdir -p "$work/box/bin"
cp /payload/bin/busybox "$work/box/bin/busybox"
for applet in sh id cat true sleep echo tty; do ln -s busybox "$work/box/bin/$applet"; done
# not by $CONTAINERS_CONF, which the timer of a health check does not have
mkdir -p "$HOME/.config/containers"
cat > "$HOME/.config/containers/containers.conf" <<END
[containers]
netns = "none"
[engine]
runtime = "kiste-runtime"
cgroup_manager = "systemd"
events_logger = "file"
[engine.runtimes]
kiste-runtime = ["/payload/bin/kiste-runtime"]
END
bad() {
	echo "$*"
	podman ps -a
	exit 1
}
same() { test "$1" = "$2" || bad "got '$1', want '$2'"; }
eventually() {
	for n in $(seq 120); do
		! "$@" || return 0
		sleep 1
	done
	bad "never: $*"
}
# a terminal whose input does not end
mkfifo "$work/input"
pty() { script -qefc "$*" /dev/null 0<> "$work/input" | tr -d '\r'; }
fails() { code=0; "$@" > "$work/out" 2>&1 || code=$?; }

tar -C "$work/box" -c . | podman import -q - bb > /dev/null

echo "- one that ends"
same "$(podman info --format '{{.Host.OCIRuntime.Name}} {{.Host.CgroupManager}} {{.Host.CgroupsVersion}}')" "kiste-runtime systemd v2"
case $(pty podman run --rm -it bb tty) in /dev/pts/0 | /dev/console) ;; *) bad "no terminal" ;; esac
fails podman run --rm bb sh -c 'exit 7'
same "$code" 7

echo "- limits, set and changed"
podman run -d --name x -m 64m --cpus 0.5 --pids-limit 20 --health-cmd 'cat /healthy' --health-interval 1s --health-retries 1 bb \
	sh -c 'echo > /healthy; exec sleep 10000' > /dev/null
set -- $(podman inspect -f '{{.State.Pid}} {{.Id}}' x)
dir=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup")
case $dir in */libpod-$2.scope) ;; *) bad "it is in $dir" ;; esac
limits() { echo "$(cat "$dir/memory.max") $(cat "$dir/cpu.max") $(cat "$dir/pids.max")"; }
same "$(limits)" "67108864 50000 100000 20"
podman update --memory 80m --cpus 0.7 x > /dev/null
same "$(limits)" "83886080 70000 100000 20"
same "$(systemctl --user show -P MemoryMax "libpod-$2.scope")" 83886080
systemctl --user daemon-reload
same "$(limits)" "83886080 70000 100000 20"
# Podman 4.3 remembers the limit of the creation alone
case $(podman stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDS}}' x) in "x "*"B / 67.11MB 1" | "x "*"B / 83.89MB 1") ;; *) bad "$(podman stats --no-stream x)" ;; esac

echo "- exec"
fails podman exec x sh -c 'exit 3'
same "$code" 3
same "$(pty podman exec -it --user 7:8 x sh -c '"tty; id -u"')" "/dev/pts/0
7"

echo "- health, asked for by systemd's timer"
status() { test "$(podman inspect -f '{{.State.Health.Status}}' x)" = "$1"; }
eventually status healthy

echo "- pause"
podman pause x > /dev/null
same "$(cat "$dir/cgroup.freeze")" 1
same "$(podman inspect -f '{{.State.Status}}' x)" paused
podman unpause x > /dev/null
same "$(cat "$dir/cgroup.freeze")" 0

echo "- restarts"
podman restart -t 0 x > /dev/null
set -- $(podman inspect -f '{{.State.Pid}} {{.State.Status}}' x)
same "$2" running
dir=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup")
test "$(cat "$dir/memory.max")" != max || bad "it has lost its limits"
podman rm -f -t 0 x > /dev/null
podman run -d --name again --restart on-failure:2 bb sh -c 'exit 1' > /dev/null
restarted() { test "$(podman inspect -f '{{.RestartCount}} {{.State.Status}}' again)" = "2 exited"; }
eventually restarted
podman rm again > /dev/null

echo "- nothing is left"
same "$(podman ps -aq)" ""
same "$(systemctl --user list-units --all --plain --no-legend 'libpod-*.scope' | grep -v conmon)" ""
podman rmi -f bb > /dev/null
rm -rf "$work" "$HOME/.config/containers"
echo done
