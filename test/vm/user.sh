# user.sh is what an ordinary user does in a session of his own, with the
# cgroups that systemd delegates to him.
set -eu
kiste version
test "$(id -u)" = 1000
