# network.sh is what an ordinary user's containers have of networks with each other,
# on kernel 6.1. Root has let all users make tap devices.
set -eu
box=$(mktemp -d)
mkdir "$box/bin"
cp /payload/bin/busybox "$box/bin/busybox"
ln -s busybox "$box/bin/sh"
echo served > "$box/page"
chmod 755 "$box"
state=$XDG_RUNTIME_DIR/kiste/shared/network
reached() {
	test "$(kiste run --rm --network web rootfs:"$box" busybox wget -q -O - http://site/page)" = served
	test "$(busybox wget -q -O - http://127.0.0.1:8080/page)" = served
}

echo "- names and ports"
kiste network create --subnet 10.253.64.0/24 web
kiste run -d --name site --network web -p 8080:80 rootfs:"$box" busybox httpd -f -p 80 -h /
reached
echo "- what keeps the namespace is killed"
kill -9 "$(cut -d' ' -f1 "$state")"
sleep 5
reached
echo "- nothing is left"
kiste rm -f site
test ! -e "$state"
kiste network rm web
