package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"kiste/fault"
	"kiste/internal/sys"
)

// lookCommand finds the program name on $PATH, or as a path where it has a
// slash. Its errors carry the codes of env(1) and docker: 127 for what is not
// there, 126 for what cannot be executed.
func lookCommand(name string) (string, error) {
	candidates := []string{name}
	if !strings.Contains(name, "/") {
		candidates = nil
		for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	denied := false
	for _, path := range candidates {
		info, err := os.Stat(path)
		switch {
		case err != nil:
			denied = denied || errors.Is(err, fs.ErrPermission)
		case info.IsDir() || sys.Access(path, 1) != nil: // X_OK
			denied = true
		default:
			return path, nil
		}
	}
	if denied {
		return "", WithCode(126, &fault.Error{Op: "run", On: name, Kind: fault.Denied, Err: errors.New("it is not an executable file"), Hint: "chmod +x, or name the interpreter"})
	}
	return "", WithCode(127, &fault.Error{Op: "run", On: name, Kind: fault.NotFound, Err: errors.New("there is no such program")})
}

// become makes this process the program at path, which lookCommand found. It
// returns only when that fails, with exit code 126.
func become(path string, argv []string) error {
	err := sys.Exec(path, argv)
	hint := ""
	if errors.Is(err, syscall.ENOEXEC) {
		hint = "it is neither a program of this architecture nor a script with #!"
	}
	return WithCode(126, &fault.Error{Op: "run", On: path, Err: err, Hint: hint})
}
