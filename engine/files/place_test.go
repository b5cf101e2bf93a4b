package files

import (
	"testing"

	"kiste/fault"
)

// Every row of the table in Docker's manual of cp.
func TestPlace(t *testing.T) {
	file, dir, content := from{"f", false}, from{"d", true}, from{".", true}
	for _, tt := range []struct {
		name string
		src  from
		dst  to
		want string // directory and name, or why not
	}{
		{"a file to nothing", file, to{path: "/x/y"}, "/x y"},
		{"a file to no directory", file, to{path: "/x/y/"}, "no such directory"},
		{"a file to no directory, with a dot", file, to{path: "/x/y/."}, "no such directory"},
		{"a file over a file", file, to{path: "/x/y", exists: true}, "/x y"},
		{"a file into a directory", file, to{path: "/x/y", exists: true, isDir: true}, "/x/y f"},
		{"a directory to nothing", dir, to{path: "/x/y"}, "/x y"},
		{"a directory to nothing, with a slash", dir, to{path: "/x/y/"}, "/x y"},
		{"a directory over a file", dir, to{path: "/x/y", exists: true}, "cannot copy directory"},
		{"a directory into a directory", dir, to{path: "/x/y/", exists: true, isDir: true}, "/x/y/ d"},
		{"what is in a directory, into one", content, to{path: "/x/y", exists: true, isDir: true}, "/x/y ."},
		{"what is in a directory, to nothing", content, to{path: "/x/y"}, "/x y"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, name, err := place(tt.src, tt.dst)
			got := dir + " " + name
			if err != nil {
				got = err.(*fault.Error).Err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q; want %q", got, tt.want)
			}
		})
	}
}

func TestSplitArg(t *testing.T) {
	for _, tt := range []struct{ in, container, path string }{
		{"c:/x", "c", "/x"},
		{"c:x:y", "c", "x:y"},
		{"/a:b", "", "/a:b"},
		{"./a:b", "", "./a:b"},
		{"file", "", "file"},
		{"-", "", "-"},
		{"c:", "c", ""},
	} {
		if c, p := SplitArg(tt.in); c != tt.container || p != tt.path {
			t.Errorf("SplitArg(%q) = %q, %q", tt.in, c, p)
		}
	}
}

func TestAbsolute(t *testing.T) {
	for in, want := range map[string]string{"x": "/x", "/x/": "/x/", "x/.": "/x/.", ".": "/.", "../../x": "/x", "/": "/", "a/../b/": "/b/"} {
		if got := absolute(in); got != want {
			t.Errorf("absolute(%q) = %q; want %q", in, got, want)
		}
	}
}
