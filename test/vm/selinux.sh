# selinux.sh is what SELinux makes of containers on a kernel that enforces a policy: that
# of Debian, with container.cil beside it, as Debian's has no types for containers.
set -eu
ended=0
trap 'ended=$?; [ $ended = 0 ] || dmesg | grep -a "avc:  denied" | tail -n 40; exit $ended' EXIT
setenforce 1
test "$(getenforce)" = Enforcing
box=$(mktemp -d)
mkdir "$box/bin" "$box/etc"
cp /payload/bin/busybox "$box/bin/busybox"
for applet in sh cat true sleep ls touch mkdir; do ln -s busybox "$box/bin/$applet"; done
chmod 755 "$box"
chcon -R -t container_ro_file_t "$box" # it is no image of the store's, which labels them itself
says() { "$@" | tr -d '\0'; }
crate() { kiste run --rm "$@"; }
own() { says crate "$@" rootfs:"$box" cat /proc/self/attr/current; }
label() { stat -c %C "$1"; }
fails() { # COMMAND...
	if "$@" > /dev/null 2>&1; then
		echo "this was let happen: $*"
		return 1
	fi
}
mkfifo /tmp/untyped
# A terminal at which nobody types: the end of what is typed, before it is raw, would be a NUL after.
pty() { script -qec "$*" /dev/null 0<> /tmp/untyped | tr -d '\r'; }
is() { # GOT, PATTERN
	case $1 in $2) ;; *) echo "got $1, want $2"; return 1 ;; esac
}

echo "- a container has a label of its own, for processes and for files"
for name in one two; do
	kiste run -d --name $name --ipc shareable rootfs:"$box" sleep 10000 > /dev/null
done
pid=$(kiste inspect -f '{{.State.Pid}}' one)
process=$(tr -d '\0' < /proc/$pid/attr/current)
mount=$(kiste inspect -f '{{.MountLabel}}' one)
is "$process" 'system_u:system_r:container_t:s0:c*,c*'
is "$mount" "system_u:object_r:container_file_t:${process#*container_t:}"
is "$(kiste inspect -f '{{.ProcessLabel}}' one)" "$process"
test "$(kiste inspect -f '{{.ProcessLabel}}' two)" != "$process"
for at in . bin/busybox dev dev/shm dev/pts etc/hosts etc/hostname; do
	is "$(label /proc/$pid/root/$at)" "$mount"
done

crate -d --name bare --userns host rootfs:"$box" sleep 10000 > /dev/null
is "$(label /proc/$(kiste inspect -f '{{.State.Pid}}' bare)/root/dev/mqueue)" "$(kiste inspect -f '{{.MountLabel}}' bare)"
kiste rm -f bare > /dev/null

echo "- exec has it too, and a start after a stop"
is "$(says kiste exec one cat /proc/self/attr/current)" "$process"
kiste stop -t 0 one > /dev/null
kiste start one > /dev/null
is "$(kiste inspect -f '{{.ProcessLabel}}' one)" "$process"

echo "- who shares processes or IPC with a container has its label, with the host none"
is "$(own --pid container:one)" "$process"
is "$(own --ipc container:one)" "$process"
for option in --privileged --pid=host --ipc=host --security-opt=label=disable; do
	is "$(own $option)" '*:unconfined_t:*'
done

echo "- labels that somebody wants"
is "$(own --security-opt label=level:s0:c5,c6)" system_u:system_r:container_t:s0:c5,c6
is "$(own --security-opt label=type:container_init_t)" 'system_u:system_r:container_init_t:s0:c*,c*'
fails crate --security-opt label=type:no_such_t rootfs:"$box" true
fails crate --security-opt label=bogus rootfs:"$box" true

echo "- a directory of the host's is denied, and with z, and Z, is not"
data=$(mktemp -d -p /srv)
echo secret > /srv/other
mkdir "$data/sub"
echo text > "$data/sub/file"
ln -s /srv/other "$data/link"
other=$(label /srv/other)
fails crate -v "$data":/d rootfs:"$box" cat /d/sub/file
is "$(says crate -v "$data":/d:z rootfs:"$box" cat /d/sub/file)" text
for at in . sub sub/file link; do is "$(label "$data/$at")" system_u:object_r:container_file_t:s0; done
is "$(label /srv/other)" "$other"
kiste run -d --name mine -v "$data":/d:Z rootfs:"$box" sleep 10000 > /dev/null
kiste exec mine sh -c 'echo more > /d/sub/file'
is "$(label "$data/sub/file")" "$(kiste inspect -f '{{.MountLabel}}' mine)"
fails crate -v "$data":/d rootfs:"$box" cat /d/sub/file
is "$(says kiste exec mine cat /d/sub/file)" more
for kept in /etc /usr /home /home/ann; do
	fails crate -v $kept:/d:z rootfs:"$box" true
done
ln -s /etc /srv/etc
fails crate -v /srv/etc:/d:z rootfs:"$box" true

echo "- a volume is for all containers, with what it has from the image"
crate -v filled:/bin rootfs:"$box" true
is "$(says crate -v filled:/d rootfs:"$box" ls /d/busybox)" /d/busybox
is "$(label /var/lib/kiste/volumes/filled/_data/busybox)" system_u:object_r:container_file_t:s0

echo "- tmpfs, and an ordinary user"
crate --tmpfs /t --read-only rootfs:"$box" touch /t/x
is "$(says runuser -u ann -- env XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/ann PATH="$PATH" kiste run --rm rootfs:"$box" cat /proc/self/attr/current)" 'system_u:system_r:container_t:s0:c*,c*'

echo "- terminals, and files with labels of their own (label=nested)"
is "$(pty "kiste run --rm -t rootfs:$box cat /proc/self/attr/current" | tr -d '\0')" 'system_u:system_r:container_t:s0:c*,c*'
is "$(own --security-opt label=nested)" 'system_u:system_r:container_t:s0:c*,c*'
kiste run -d -t --name nested --security-opt label=nested rootfs:"$box" sh -c 'echo here > /dev/tty; exec sleep 10000' > /dev/null
mount=$(kiste inspect -f '{{.MountLabel}}' nested)
for at in dev dev/shm dev/console dev/pts/0; do is "$(label /proc/$(kiste inspect -f '{{.State.Pid}}' nested)/root/$at)" "$mount"; done
is "$(pty "kiste exec -t nested sh -c 'echo -n here > /dev/tty'")" here
is "$(kiste logs nested | tr -d '\r')" here
kiste rm -f nested > /dev/null

echo "- kiste-runtime gives the labels of its document, to create, start and exec"
bundle=$(mktemp -d)
kiste-runtime spec -b "$bundle"
sed -i -e 's#"sh"#"sleep", "10000"#' -e 's#"terminal": true#"terminal": false#' -e "s#\"path\": \"rootfs\"#\"path\": \"$box\"#" \
	-e 's#"noNewPrivileges": true#&, "selinuxLabel": "system_u:system_r:container_t:s0:c7,c8"#' \
	-e '/"\/proc\/keys"/d' -e 's#"linux": {#& "mountLabel": "system_u:object_r:container_file_t:s0:c7,c8",#' "$bundle/config.json"
kiste-runtime create -b "$bundle" labelled < /dev/null > /dev/null 2>&1
kiste-runtime start labelled
pid=$(kiste-runtime state labelled | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
is "$(tr -d '\0' < /proc/$pid/attr/current)" system_u:system_r:container_t:s0:c7,c8
is "$(label /proc/$pid/root/dev/shm)" system_u:object_r:container_file_t:s0:c7,c8
within() { # LABEL [OPTION...]: a process has it; the pipes of this shell are of more categories than a container may write to
	want=$1
	shift
	kiste-runtime exec "$@" labelled sh -c 'cat /proc/self/attr/current > /dev/shm/own' 2> /dev/null
	is "$(tr -d '\0' < /proc/$pid/root/dev/shm/own)" "$want"
}
within system_u:system_r:container_t:s0:c7,c8
within system_u:system_r:container_init_t:s0:c7,c8 --process-label system_u:system_r:container_init_t:s0:c7,c8
kiste-runtime exec labelled sh -c 'cat /proc/keys > /dev/shm/keys' 2> /dev/null
grep -q 'keyring *_ses.labelled' /proc/$pid/root/dev/shm/keys || { echo "its keyring is not to be seen by it:"; cat /proc/$pid/root/dev/shm/keys; exit 1; }
kiste-runtime delete -f labelled
sed -i 's#container_t:s0:c7#no_such_t:s0:c7#' "$bundle/config.json"
fails kiste-runtime run -b "$bundle" labelled
test -z "$(kiste-runtime list -q)"

echo "- root's Podman on kiste-runtime, which creates and starts"
pods=$(mktemp -d)
pod() { podman --storage-driver vfs --root "$pods/root" --runroot /run/pods --tmpdir /run/pods/tmp --runtime "$(command -v kiste-runtime)" --cgroup-manager cgroupfs --events-backend file "$@"; }
tar -C "$box" -c . | pod import -q - box > /dev/null
pod run -d --name pod --network none box sleep 10000 > /dev/null
pid=$(pod inspect -f '{{.State.Pid}}' pod)
process=$(tr -d '\0' < /proc/$pid/attr/current)
is "$process" 'system_u:system_r:container_t:s0:c*,c*'
is "$(label /proc/$pid/root/dev/shm)" "system_u:object_r:container_file_t:${process#*container_t:}"
pod exec pod sh -c 'cat /proc/self/attr/current > /dev/shm/own' 2> /dev/null
is "$(tr -d '\0' < /proc/$pid/root/dev/shm/own)" "$process"
pod rm -f -t 0 pod > /dev/null

echo "- layers of images are labelled by the store"
tar -C "$box" -c . | kiste import - box > /dev/null
is "$(says crate box cat /proc/self/attr/current)" 'system_u:system_r:container_t:s0:c*,c*'
is "$(label /var/lib/kiste/snapshots/overlay/layers/*/diff)" system_u:object_r:container_ro_file_t:s0
crate --mount type=image,source=box,target=/i rootfs:"$box" /i/bin/busybox true

echo "- levels are free when their containers are gone"
kiste rm -f one two mine > /dev/null
test -z "$(ls /var/lib/kiste/levels)"
echo done
