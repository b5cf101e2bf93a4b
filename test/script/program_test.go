package script

import (
	"os"
	"path/filepath"
)

// programs are those of scripts that more than one calls: see doc.go.
var programs = map[string]string{
	"ofstore": `for file in $(grep -lsz "^KISTE_RUN=$KISTE_RUN\$" /proc/[0-9]*/environ); do
	p=${file%/environ}
	case "$(tr '\0' ' ' <$p/cmdline 2>/dev/null)" in
	*ofstore*) ;; # this program itself
	$1" ") echo ${p#/proc/} ;;
	esac
done
`,
	"runstop": `post() {
	curl -sS --fail-with-body --unix-socket $socket -X POST -H 'Content-Type: application/json' "$@"
}
set -e
socket=$1
post -d "{\"Image\": \"bb\", \"Cmd\": [\"/bin/sleep\", \"1000\"], \"HostConfig\": {\"AutoRemove\": true, \"NetworkMode\": \"$3\"$4}}" "http://engine/v1.40/containers/create?name=$2" >/dev/null
post http://engine/v1.40/containers/$2/start
post "http://engine/v1.40/containers/$2/stop?t=0"
echo $2
`,
}

func writePrograms(dir string) error {
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			return err
		}
	}
	return nil
}
