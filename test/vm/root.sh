# root.sh is what a person does as root on a Debian 12 with systemd.
set -eu
kiste version
kiste help > /dev/null
