# guest.sh runs inside the virtual machine, as root, from /payload, what the
# kernel's command line says: the tests of packages, each in its own directory,
# or the scripts. It exits with the number of what failed.
export KISTE_BUILT=/payload/bin/kiste HOME=/root PATH=/payload/bin:/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp
failed=0
also= # what more must be there
fails() {
	echo "--- FAIL: $1"
	failed=$((failed + 1))
}
tests() { # OPTION...: the tests of this directory
	KISTE_REQUIRE=root,cgroup2,userns,criu,mem_dirty_track,uffd-noncoop$also timeout -k 20 $((patience + 10)) ./test -test.short -test.timeout ${patience}s -test.v=false "$@"
}
# A test that failed is run once more, alone, as test/unit does it: a machine that is
# emulated beside others is slow at times.
again() { # LOG
	grep -q '^panic: ' "$1" && return 1 # what comes after it has not been run
	sed -n 's/^ *--- FAIL: \([^ ]*\) .*/\1/p' "$1" | sort -r >"$1.names"
	last=
	while read -r name; do
		case $last in "$name"/*) continue ;; esac # its part is what failed
		last=$name
		tests -test.run "^$(echo "$name" | sed 's/[^A-Za-z0-9_/]/./g; s|/|$/^|g')\$" </dev/null || return 1
		echo "=== NOT STEADY, failed above and passed when tested once more: $name"
	done <"$1.names"
	rm "$1.names"
	[ -n "$last" ] # else it failed without a test that did
}
go_test() { # TITLE DIRECTORY OPTION...
	title=$1
	cd "/payload/tests/$2"
	shift 2
	before=$(date +%s)
	log=$(mktemp)
	case $title in # what hangs is to end by Go's own hand, which tells where
	container/*|scripts*) patience=1200 ;;
	*) patience=600 ;;
	esac
	echo "=== root: $title"
	{ tests "$@" || echo failed >"$log.failed"; } | tee "$log"
	if [ -e "$log.failed" ]; then
		again "$log" || fails "$title"
	fi
	rm -f "$log" "$log.failed"
	echo "=== took $(($(date +%s) - before)) s"
}
run() { # TITLE PROGRAM ARGUMENT...
	echo "=== $1"
	shift
	timeout -k 20 "${limit:-120}" "$@" || fails "$*"
}

packages() {
	modprobe sctp
	also=,sctp,legacy_iptables
	for name in $(cd /payload/tests && find * -name test -type f | sort); do
		name=${name%/test}
		[ "$name" = test/script ] || go_test "$name" "$name"
	done
}

scripts() {
	also=,programs
	go_test "scripts of kiste-runtime" test/script -test.run 'Scripts/^runtime_'
	# See doc.go for what is left out.
	KISTE_CGROUPS=systemd go_test "scripts of kiste-runtime, cgroups by systemd" test/script \
		-test.run 'Scripts/^runtime_' -test.skip '/^runtime_(compat|errors|help|log|rootless|spec)$'
	left=$(systemctl list-units --all --plain --no-legend 'kiste-*.scope')
	[ -z "$left" ] || fails "units are left: $left"
	session="XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/ann PATH=$PATH"
	run "root: root.sh" sh /payload/root.sh
	run "user: user.sh" runuser -u ann -- env $session DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus \
		systemd-run --quiet --user --wait --pipe --collect -p Delegate=yes -E PATH="$PATH" -E HOME=/home/ann sh /payload/user.sh
	modprobe tun && chmod 0666 /dev/net/tun
	run "user: network.sh" runuser -u ann -- env $session sh /payload/network.sh
	run "root: systemd.sh" sh /payload/systemd.sh
	run "user: systemd.sh" runuser -u ann -- env $session sh /payload/systemd.sh
}

# See doc.go for what is left out.
networks() {
	also=,programs
	go_test "scripts about networks" test/script -test.run 'Scripts/^network(_(verbs|run|options|ports|ports_move|names|connect|firewall|monitor_group))?$'
}

# small_system is a tar of what of this machine a system needs to start, without the
# services that somebody has enabled: the emulator takes a second to import two megabytes.
small_system() {
	lib=usr/lib/$(uname -m)-linux-gnu
	tar -C / -c --exclude='etc/systemd/system/*.wants' --exclude=var/lib/systemd/linger --exclude='var/cache/*' --exclude='var/lib/apt/*' --exclude='var/lib/dpkg/*' \
		--exclude='var/log/*' --exclude='dev/*' --exclude='proc/*' --exclude='root/*' --exclude='run/*' --exclude='sys/*' --exclude='tmp/*' \
		--exclude=$lib/gconv --exclude="$lib/*perl*" --exclude='usr/bin/perl*' --exclude='usr/bin/python*' --exclude=podman --exclude=runc --exclude=strace \
		bin dev etc lib lib64 proc root run sbin sys tmp usr/bin usr/lib64 usr/lib/os-release usr/lib/systemd usr/lib/tmpfiles.d usr/lib/sysusers.d $lib usr/sbin usr/share/dbus-1 var
}

living() {
	networks
	limit=420
	session="XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/ann PATH=$PATH"
	for kind in system user; do
		mkdir -p "/run/systemd/$kind-generators"
		sed -e 's|@PREFIX@|/payload|' -e "s|@USER@ |$([ $kind = user ] && echo '--user ')|" /payload/systemd/kiste-generator.in > "/run/systemd/$kind-generators/kiste-generator"
		chmod 755 "/run/systemd/$kind-generators/kiste-generator"
	done
	run "root: living.sh" sh /payload/living.sh
	small_system > /payload/system.tar
	limit=600
	run "user: living.sh" runuser -u ann -- env $session sh /payload/living.sh
	run "root: apparmor.sh" sh /payload/apparmor.sh
	run "root: quota.sh" sh /payload/quota.sh
	run "root: nfs.sh" sh /payload/nfs.sh
	run "user: podman.sh" runuser -u ann -- env $session DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus \
		systemd-run --quiet --user --wait --pipe --collect -p Delegate=yes -E PATH="$PATH" -E HOME=/home/ann sh /payload/podman.sh
}

selinux() {
	run "root: selinux.sh" runcon unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023 sh /payload/selinux.sh
}

# While the machine lives it says so: see patience in vm_test.go.
while sleep 20; do
	echo "=== alive after $(cut -d . -f 1 /proc/uptime) s"
done &
heart=$!

lane=$(sed -n 's/.*kiste\.lane=\([a-z]*\).*/\1/p' /proc/cmdline)
echo "$lane: kernel $(uname -r), $(stat -f -c %T /sys/fs/cgroup), $(systemctl --version | head -n 1)"
$lane
kill $heart
exit $failed
