# apparmor.sh is what AppArmor makes of containers on Debian's kernel, under a profile
# like the one that Docker has for all of its containers.
set -eu
mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
apparmor_parser -r << 'PROFILE'
@{PROC}=/proc/
profile kiste-box flags=(attach_disconnected,mediate_deleted) {
	network,
	capability,
	file,
	umount,
	signal (receive) peer=unconfined,
	signal (send, receive) peer=kiste-box,
	ptrace (trace, read, tracedby, readby) peer=kiste-box,
	deny @{PROC}/* w,
	deny @{PROC}/sysrq-trigger rwklx,
	deny /sys/firmware/** rwklx,
	deny mount,
	deny /secret r,
}

profile kiste-narrow flags=(attach_disconnected,mediate_deleted) {
	network,
	capability,
	umount,
	signal,
	/** rwlkm,
}
PROFILE
box=$(mktemp -d)
mkdir "$box/bin"
cp /payload/bin/busybox "$box/bin/busybox"
for applet in sh cat true sleep tty echo; do ln -s busybox "$box/bin/$applet"; done
echo secret > "$box/secret"
echo public > "$box/public"
chmod 755 "$box"
confined="kiste-box (enforce)"
crate() { kiste run --rm --security-opt apparmor=kiste-box "$@"; }
fails() { # COMMAND...
	if "$@" > /dev/null 2>&1; then
		echo "this was let happen: $*"
		return 1
	fi
}
mkfifo /tmp/untyped
# A terminal at which nobody types: the end of what is typed, before it is raw, would be a NUL after.
pty() { script -qec "$*" /dev/null 0<> /tmp/untyped | tr -d '\r'; }
is() { test "$1" = "$2" || { echo "got '$1', want '$2'"; exit 1; }; }

echo "- a container is confined, with a user namespace and without, with an init and a terminal"
for option in --init=false --userns=host --init --read-only; do
	is "$(crate $option rootfs:"$box" cat /proc/self/attr/current)" "$confined"
done
is "$(pty "kiste run --rm -t --security-opt apparmor=kiste-box rootfs:$box cat /proc/self/attr/current")" "$confined"
is "$(crate rootfs:"$box" cat /public)" public
fails crate rootfs:"$box" cat /secret
is "$(kiste run --rm --security-opt apparmor=unconfined rootfs:"$box" cat /secret)" secret

echo "- so is exec, but for a privileged one"
kiste run -d --name box --userns host --security-opt apparmor=kiste-box rootfs:"$box" sleep 10000 > /dev/null
is "$(kiste exec box cat /proc/self/attr/current)" "$confined"
fails kiste exec box cat /secret
is "$(kiste exec --privileged box cat /secret)" secret
kiste rm -f box > /dev/null

echo "- a profile that is not there is an error that names it"
! kiste run --rm --security-opt apparmor=no-such rootfs:"$box" true 2> /tmp/said || exit 1
grep -q no-such /tmp/said || { cat /tmp/said; exit 1; }

echo "- kiste-runtime: create, start, exec, exec --apparmor"
bundle=$(mktemp -d)
kiste-runtime spec -b "$bundle"
sed -i -e 's#"sh"#"sleep", "10000"#' -e 's#"terminal": true#"terminal": false#' -e "s#\"path\": \"rootfs\"#\"path\": \"$box\"#" \
	-e 's#"noNewPrivileges": true#&, "apparmorProfile": "kiste-box"#' "$bundle/config.json"
kiste-runtime create -b "$bundle" confined < /dev/null > /dev/null 2>&1
kiste-runtime start confined
pid=$(kiste-runtime state confined | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
is "$(cat /proc/$pid/attr/current)" "$confined"
is "$(kiste-runtime exec confined cat /proc/self/attr/current)" "$confined"
fails kiste-runtime exec confined cat /secret
is "$(kiste-runtime exec --apparmor unconfined confined cat /secret)" secret
kiste-runtime delete -f confined
sed -i 's#kiste-box#no-such#' "$bundle/config.json"
! kiste-runtime run -b "$bundle" confined 2> /tmp/said || exit 1
grep -q no-such /tmp/said || { cat /tmp/said; exit 1; }
test -z "$(kiste-runtime list -q)"

echo "- a profile need not allow the program itself, only what that executes"
narrow="kiste-narrow (enforce)"
is "$(kiste run --rm --userns host --security-opt apparmor=kiste-narrow rootfs:"$box" cat /proc/self/attr/current)" "$narrow"
is "$(pty "kiste run --rm -t --userns host --security-opt apparmor=kiste-narrow rootfs:$box cat /proc/self/attr/current")" "$narrow"
fails kiste run --rm --userns host --security-opt apparmor=kiste-narrow rootfs:"$box" sh -c "/bin/cat /public"
sed -i -e 's#no-such#kiste-narrow#' -e 's#"uid": 0#"uid": 1000#' "$bundle/config.json"
kiste-runtime create -b "$bundle" narrow < /dev/null > /dev/null 2>&1
pid=$(kiste-runtime state narrow | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
is "$(cat /proc/$pid/attr/current)" unconfined
is "$(stat -c %u /proc/$pid/maps)" 0 # of a process into which its user may not look
kiste-runtime start narrow
is "$(stat -c %u /proc/$pid/maps)" 1000
is "$(kiste-runtime exec narrow cat /proc/self/attr/current)" "$narrow"
is "$(pty "kiste-runtime exec -t narrow cat /proc/self/attr/current")" "$narrow"
fails kiste-runtime exec narrow sh -c "/bin/cat /public"
is "$(cat /proc/$pid/attr/current)" "$narrow"
test -z "$(find /proc/$pid/fd -lname '*attr*')"
kiste-runtime delete -f narrow

echo "- one that is removed before the start is an error then, and nothing is executed without it"
cat > /tmp/late << 'PROFILE'
profile kiste-late flags=(attach_disconnected,mediate_deleted) {
	/** rwlkm,
}
PROFILE
apparmor_parser -r /tmp/late
sed -i 's#kiste-narrow#kiste-late#' "$bundle/config.json"
kiste-runtime create -b "$bundle" late < /dev/null > /dev/null 2>&1
apparmor_parser -R /tmp/late
! kiste-runtime start late 2> /tmp/said || exit 1
grep -q "apparmor failed to apply profile" /tmp/said || { cat /tmp/said; exit 1; }
is "$(kiste-runtime state late | sed -n 's/.*"status": *"\(.*\)".*/\1/p')" stopped
kiste-runtime delete late

echo "- where a filter keeps the stub from asking, it is confined itself"
sed -i -e 's#kiste-late#kiste-box#' -e 's#"linux": {#&"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["close"], "action": "SCMP_ACT_ERRNO"}]},#' "$bundle/config.json"
kiste-runtime run -d -b "$bundle" filtered < /dev/null > /dev/null 2>&1
pid=$(kiste-runtime state filtered | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
is "$(cat /proc/$pid/attr/current)" "$confined"
kiste-runtime delete -f filtered

echo "- root's Podman on kiste-runtime, under a profile of its own making and under this one"
pods=$(mktemp -d)
pod() { podman --storage-driver vfs --root "$pods/root" --runroot /run/pods --tmpdir /run/pods/tmp --runtime "$(command -v kiste-runtime)" --cgroup-manager cgroupfs --events-backend file "$@"; }
tar -C "$box" -c . | pod import -q - box > /dev/null
pod run -d --name pod --network none box sleep 10000 > /dev/null
case $(pod exec pod cat /proc/self/attr/current) in containers-default-*" (enforce)") ;; *) pod exec pod cat /proc/self/attr/current; exit 1 ;; esac
is "$(cat /proc/$(pod inspect -f '{{.State.Pid}}' pod)/attr/current)" "$(pod exec pod cat /proc/self/attr/current)"
pod rm -f -t 0 pod > /dev/null
is "$(pod run --rm --network none --security-opt apparmor=kiste-box box cat /proc/self/attr/current)" "$confined"
echo done
