# living.sh is what containers that live are promised on a host with systemd: as
# root, and as an ordinary user with an instance of systemd of his own.
set -eu
user=$(id -u)
sd="systemctl"
run="systemd-run --quiet"
if [ "$user" != 0 ]; then
	sd="systemctl --user"
	run="systemd-run --quiet --user"
fi
work=$(mktemp -d)
box=$work/box
mkdir -p "$box/bin"
cp /payload/bin/busybox "$box/bin/busybox"
for applet in sh id cat true sleep echo ls wc; do ln -s busybox "$box/bin/$applet"; done
chmod 755 "$work" "$box"
same() { test "$1" = "$2" || { echo "got '$1', want '$2'"; exit 1; }; }
within() { # SECONDS COMMAND...
	late=$(($(date +%s) + $1))
	shift
	while [ "$(date +%s)" -le "$late" ]; do
		if "$@" > "$work/within" 2>&1; then return; fi
		sleep 0.2
	done
	echo "not in time: $*"
	cat "$work/within"
	exit 1
}
now() { cut -d' ' -f1 /proc/uptime; }

echo "- a service that ends takes no container along"
$run --wait --pipe --collect --unit kiste-survivor kiste run -d -it --name survivor rootfs:"$box" cat
within 5 test "$($sd show -P ActiveState kiste-survivor.service)" = inactive
same "$(kiste inspect --format '{{.State.Status}}' survivor)" running
same "$(kiste exec survivor echo alive)" alive
$run --scope kiste run -d --name other rootfs:"$box" sleep 1000
same "$(kiste ps -q | wc -l)" 2
for pid in $(pgrep -u "$user" -f 'kiste __monitor|kiste-holder'); do
	group=$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
	case $group in */kiste-monitor-*) ;; *) echo "$(cat "/proc/$pid/cmdline" | tr '\0' ' ') is in $group"; exit 1 ;; esac
done

echo "- nor does the end of the monitor"
kill -9 $(pgrep -u "$user" -xf 'kiste __monitor')
within 5 test "$(kiste exec other echo alive)" = alive
kiste rm -f survivor other > /dev/null
gone() { test -z "$(find /sys/fs/cgroup -type d -name 'kiste-monitor-*' -user "$user")"; }
within 5 gone

echo "- a whole system"
began=$(now)
if [ "$user" = 0 ]; then
	mount --bind / /mnt # as a layer of its own, and with a store that is not in it
	export KISTE_LIB=/payload/lib
	set -- --tmpfs /etc/systemd/system/multi-user.target.wants rootfs:/mnt
else # whose files are to be his
	kiste import /payload/system.tar system > /dev/null
	echo "  imported after $(echo "$(now) $began" | awk '{ print $1 - $2 }') s"
	began=$(now)
	set -- system
fi
kiste run -d --name sys "$@" /sbin/init > /dev/null
running() { test "$(kiste exec sys systemctl is-system-running)" = running; }
trap 'kiste logs sys | tail -n 30; kiste exec sys systemctl list-jobs; kiste exec sys systemctl --failed' EXIT
within 200 running
trap - EXIT
echo "  running after $(echo "$(now) $began" | awk '{ print $1 - $2 }') s"
kiste exec sys systemctl list-units --failed --no-legend
same "$(kiste exec sys sh -c 'cat /proc/$(systemctl show -P MainPID dbus.service)/cgroup')" 0::/system.slice/dbus.service
kiste exec sys systemd-run --wait -q -u talk -p MemoryMax=20M echo a word from a service
kiste exec sys journalctl --no-pager -u talk | grep -q "a word from a service"
kiste exec sys sh -c 'echo max > /sys/fs/cgroup/memory.max' 2> /dev/null && { echo "its root lifts its limits"; exit 1; }
began=$(now)
kiste stop -t 100 sys > /dev/null
echo "  down after $(echo "$(now) $began" | awk '{ print $1 - $2 }') s"
same "$(kiste inspect --format '{{.State.ExitCode}}' sys)" 0
kiste logs sys | grep -q "Exiting container"
kiste rm sys > /dev/null
if [ "$user" = 0 ]; then
	unset KISTE_LIB
	umount /mnt
else
	kiste rmi system > /dev/null
fi

echo "- a unit for a container that is there"
units=/etc/systemd/system
[ "$user" = 0 ] || units=$HOME/.config/systemd/user
quadlets=/etc/containers/systemd
[ "$user" = 0 ] || quadlets=$HOME/.config/containers/systemd
mkdir -p "$units" "$quadlets"
loop='echo it is up; trap "exit 0" TERM; while :; do sleep 0.1; done'
up() { test "$(kiste inspect --format '{{.State.Status}}' "$1")" = running; }
state() { $sd show -P ActiveState "$1"; }
kiste create --name svc -m 64m rootfs:"$box" sh -c "$loop" > /dev/null
kiste generate systemd --name --container-prefix "" svc > "$units/svc.service"
$sd daemon-reload
$sd start svc
same "$(state svc)" active
up svc
pid=$(kiste inspect --format '{{.State.Pid}}' svc)
case $(cat "/proc/$pid/cgroup") in */svc.service/*) ;; *) echo "it is in $(cat "/proc/$pid/cgroup")"; exit 1 ;; esac
first=$pid
same "$(kiste exec svc echo alive)" alive
kiste kill -s KILL svc > /dev/null
again() { up svc && test "$(kiste inspect --format '{{.State.Pid}}' svc)" != "$first"; }
within 10 again
same "$($sd show -P NRestarts svc)" 1
$sd restart svc
up svc
$sd stop svc
same "$(state svc) $($sd show -P Result svc)" "inactive success"
same "$(kiste inspect --format '{{.State.Status}} {{.State.ExitCode}}' svc)" "exited 0"
test ! -e "/sys/fs/cgroup$($sd show -P ControlGroup svc)/svc.service"
[ "$user" != 0 ] || journalctl -u svc | grep -q "it is up"

echo "- a unit that makes its container anew"
kiste generate systemd --new --name svc > "$units/container-svc.service"
kiste rm svc > /dev/null
$sd daemon-reload
$sd start container-svc
up svc
same "$(kiste exec svc cat /sys/fs/cgroup/memory.max)" 67108864
$sd stop container-svc
same "$(state container-svc)" inactive
same "$(kiste ps -aq)" ""

echo "- quadlets"
cat > "$quadlets/web.container" << END
[Container]
Rootfs=$box
Exec=sh -c 'echo \$\$A > /data/a; exec sleep 1000'
Environment=A=b
Volume=data.volume:/data
ContainerName=web
[Service]
Restart=always
END
printf '[Volume]\n' > "$quadlets/data.volume"
printf '[Container]\nImage=x\nNonsense=1\n' > "$quadlets/bad.container"
$sd daemon-reload
$sd start web
same "$(state web) $(state data-volume)" "active active"
up web
same "$(kiste exec web cat /data/a)" b
$sd stop web
same "$(kiste ps -aq)" ""
kiste volume rm systemd-data > /dev/null
rm "$quadlets"/*

echo "- a boot"
if [ "$user" = 0 ]; then
	sed 's|@PREFIX@|/payload|' /payload/systemd/kiste-boot.service.in > "$units/kiste-boot.service"
	$sd daemon-reload
	$sd start kiste-boot
	kiste run -d --name kept --restart unless-stopped rootfs:"$box" sh -c "$loop" > /dev/null
	kiste run -d --name left rootfs:"$box" sh -c "$loop" > /dev/null
	kiste run -d --name ended --restart unless-stopped rootfs:"$box" sh -c "$loop" > /dev/null
	kiste stop ended > /dev/null
	$sd stop kiste-boot
	same "$(kiste ps -q)" ""
	within 10 gone # who ends still takes away what is his
	rm -rf /run/kiste
	$sd start kiste-boot
	same "$(kiste ps --format '{{.Names}}')" kept
	$sd stop kiste-boot
	kiste rm kept left ended > /dev/null
fi

echo "- nothing is left"
rm -f "$units/svc.service" "$units/container-svc.service" "$units/kiste-boot.service"
$sd daemon-reload
same "$(kiste ps -aq)" ""
within 5 gone
rm -rf "$work"
echo done
