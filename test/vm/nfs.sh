# nfs.sh has volumes that a server of NFS has, this machine's own: the kernel of the
# tests' host knows none.
set -eu
modprobe nfs
modprobe nfsd
mkdir -p /srv/share /tmp/box/bin
chmod 777 /srv/share
cp /payload/bin/busybox /tmp/box/bin/busybox
for applet in sh cat id stat; do ln -s busybox "/tmp/box/bin/$applet"; done
echo "from the server" > /srv/share/word
chown 7:7 /srv/share/word
echo '/srv/share 127.0.0.1(rw,no_root_squash,insecure,no_subtree_check,fsid=1)' > /etc/exports
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
rpcbind
exportfs -a
rpc.nfsd --lease-time 10 --grace-time 10 2
rpc.mountd
export KISTE_LIB=/payload/nfs KISTE_RUN=/run/kiste-nfs # whatever others have left
same() { test "$1" = "$2" || { echo "got '$1', want '$2'"; exit 1; }; }
volume() { # TYPE OPTIONS
	kiste volume create -o type="$1" -o o="$2" -o device=:/srv/share remote > /dev/null
}

echo "- each version; the address may be a name"
for options in "nfs addr=127.0.0.1,vers=4" "nfs addr=127.0.0.1,rw,nfsvers=4.2" "nfs4 addr=127.0.0.1" "nfs4 addr=127.0.0.1,minorversion=1" \
	"nfs addr=localhost,vers=4" "nfs addr=127.0.0.1,vers=3,nolock"; do
	echo "  $options"
	volume $options
	same "$(kiste run --rm --userns host -v remote:/data rootfs:/tmp/box sh -c 'cat /data/word; stat -c %u /data/word; echo back > /data/answer')" "from the server
7"
	same "$(cat /srv/share/answer)" back
	rm /srv/share/answer
	kiste volume rm remote > /dev/null
	! grep -E ' nfs4? ' /proc/mounts || { echo "it is still mounted"; exit 1; }
done

echo "- what cannot be id-mapped says what to do"
volume nfs addr=127.0.0.1,vers=4
! kiste run --rm -v remote:/data rootfs:/tmp/box cat /data/word 2> /tmp/said || { echo "the kernel maps ids of nfs"; exit 1; }
grep -q 'hint: .*noidmap' /tmp/said || { cat /tmp/said; exit 1; }
same "$(kiste run --rm -v remote:/data:noidmap rootfs:/tmp/box cat /data/word)" "from the server"

echo "- containers share it, the last one unmounts it"
kiste run -d -i --name one --userns host -v remote:/data rootfs:/tmp/box cat > /dev/null
kiste run -d -i --name two --userns host -v remote:/data rootfs:/tmp/box cat > /dev/null
kiste exec two cat /data/word
kiste rm -f one two > /dev/null
! grep -E ' nfs4? ' /proc/mounts || { echo "it is still mounted"; exit 1; }

echo "- a name that nobody knows"
kiste volume rm remote > /dev/null
volume nfs addr=nowhere.invalid,vers=4
! kiste run --rm --userns host -v remote:/data rootfs:/tmp/box cat /data/word 2> /tmp/said || { echo "it is mounted"; exit 1; }
grep -q 'nowhere.invalid' /tmp/said || { cat /tmp/said; exit 1; }
kiste volume rm remote > /dev/null
echo done
