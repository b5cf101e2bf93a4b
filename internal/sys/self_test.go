package sys_test

import (
	"os"
	command "os/exec"
	"testing"

	"kiste/internal/sys"
)

// A program is executed by its path wherever package os/exec puts the other
// descriptors: here it has lower ones for its own needs, and moves one of them to
// the next after those that the child gets.
func TestProgramPath(t *testing.T) {
	open := func(name string) *os.File {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	var low []*os.File
	for range 30 {
		low = append(low, open(os.DevNull))
	}
	given := open(os.DevNull)
	defer given.Close()
	program := open("/bin/true")
	defer program.Close()
	for _, f := range low {
		f.Close()
	}
	cmd := command.Command(sys.ProgramPath(program))
	cmd.ExtraFiles = []*os.File{given}
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
}
