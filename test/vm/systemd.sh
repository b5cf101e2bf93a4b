# systemd.sh lets kiste-runtime make containers with systemd's cgroups: as root,
# and as a user whose session is no part of his own instance's tree.
set -eu
user=$(id -u)
sd="systemctl"
where=/system.slice
if [ "$user" != 0 ]; then
	sd="systemctl --user"
	where=/user.slice/user-$user.slice/user@$user.service/user.slice
	rootless=--rootless
fi
work=$(mktemp -d)
crate() { kiste-runtime --root "$work/state" --systemd-cgroup "$@"; }
bundle() { # NAME PROGRAM RESOURCES ANNOTATIONS
	mkdir -p "$work/$1/rootfs/bin" "$work/$1/rootfs/proc" "$work/$1/rootfs/dev" "$work/$1/rootfs/sys"
	cp /payload/bin/busybox "$work/$1/rootfs/bin/busybox"
	for applet in sh id cat true sleep; do ln -s busybox "$work/$1/rootfs/bin/$applet"; done
	(
		cd "$work/$1"
		kiste-runtime spec ${rootless:-}
		tr -d '\n\t' < config.json | sed -e 's/"terminal": *true/"terminal": false/' -e 's|"args": *\[[^]]*\]|"args": ["sh", "-c", "'"$2"'"]|' \
			-e 's|"linux": *{|"annotations": {'"$4"'}, "linux": {"cgroupsPath": "'"${5:-}"'", |' -e 's|"resources": *{|"resources": {'"$3"',|' > new
		case $(cat new) in *'"resources"'*) ;; *) sed -i -e 's|"linux": *{|"linux": {"resources": {'"$3"'},|' new ;; esac
		mv new config.json
	)
}
shown() { $sd show --property="$2" --value "$1"; }
same() { test "$1" = "$2" || { echo "got '$1', want '$2'"; exit 1; }; }

echo "- a container in a scope"
bundle one 'cat /proc/self/cgroup' '"memory": {"limit": 67108864}, "pids": {"limit": 20}' '"org.systemd.property.TimeoutStopSec": "7"'
same "$(crate run -b "$work/one" one)" 0::/
same "$(shown kiste-one.scope LoadState)" not-found

echo "- its limits are systemd's, and change"
slice=kistetest.slice
bundle two 'sleep 1000' '"memory": {"limit": 67108864}, "cpu": {"quota": 50000, "period": 100000}, "pids": {"limit": 20}' '"org.systemd.property.CollectMode": "'\''inactive-or-failed'\''"' "$slice:docker:two"
crate create -b "$work/two" two
same "$(shown docker-two.scope MemoryMax)" 67108864
same "$(shown docker-two.scope TasksMax)" 20
same "$(shown docker-two.scope CollectMode)" inactive-or-failed
same "$(shown docker-two.scope Slice)" "$slice"
dir=/sys/fs/cgroup$(shown docker-two.scope ControlGroup)
case $dir in */kistetest.slice/docker-two.scope) ;; *) echo "it is in $dir"; exit 1 ;; esac
same "$(cat "$dir/cpu.max")" "50000 100000"
crate start two
pid=$(crate state two | tr -d ' ,"' | sed -n 's/^pid://p')
grep -q docker-two.scope "/proc/$pid/cgroup"
crate update --memory 134217728 --memory-swap 134217728 --pids-limit -1 --cpu-quota 20000 two
same "$(shown docker-two.scope MemoryMax)" 134217728
same "$(shown docker-two.scope TasksMax)" infinity
same "$(cat "$dir/memory.max") $(cat "$dir/memory.swap.max") $(cat "$dir/pids.max") $(cat "$dir/cpu.max")" "134217728 0 max 20000 100000"
$sd daemon-reload
same "$(cat "$dir/memory.max") $(cat "$dir/pids.max") $(cat "$dir/cpu.max")" "134217728 max 20000 100000"

echo "- exec, pause, events, kill"
same "$(crate exec two cat /proc/self/cgroup)" 0::/
crate pause two
same "$(cat "$dir/cgroup.freeze")" 1
crate resume two
crate events --stats two | grep -q '"limit":134217728'
if crate run -b "$work/two" three 2> "$work/err"; then echo "a scope in use was taken"; exit 1; fi
grep -q "not empty" "$work/err"
crate delete --force two
same "$(shown docker-two.scope LoadState)" not-found
test ! -e "$dir"

echo "- what cannot be"
bundle bad 'true' '"memory": {"limit": 67108864}' '"org.systemd.property.SuccessAction": "'\''poweroff-force'\''"'
if crate run -b "$work/bad" bad 2> "$work/err"; then echo "SuccessAction was taken"; exit 1; fi
grep -q SuccessAction "$work/err"
bundle odd 'true' '"memory": {"limit": 67108864}' '"org.systemd.property.NoSuchThing": "true"'
if crate run -b "$work/odd" odd 2> "$work/err"; then echo "an unknown property was taken"; exit 1; fi
grep -q NoSuchThing "$work/err"
bundle wrong 'true' '"memory": {"limit": 67108864}' '' /a/path
if crate run -b "$work/wrong" wrong 2> "$work/err"; then echo "a path was taken"; exit 1; fi
grep -q 'slice:prefix:name' "$work/err"

echo "- nothing is left"
test -z "$(ls "$work/state" 2> /dev/null)"
test -z "$($sd list-units --all --plain --no-legend 'kiste-*.scope' 'docker-*.scope')"
rm -rf "$work"
echo done
