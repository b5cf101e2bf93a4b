package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	dockerIndex  = "https://index.docker.io/v1/" // what docker login files docker.io under
	maxAuthFile  = 8 << 20
	maxHelperOut = 64 << 10
	helperTime   = 30 * time.Second
)

// credentials are what somebody logged in with. None at all are the zero value.
type credentials struct {
	username, password string
	identityToken      string // to be changed for an access token
	registryToken      string // to be sent as it is
	from               string // the file or the helper
	note               string // why some could not be had
}

func (c *credentials) found() bool {
	return c.username != "" || c.identityToken != "" || c.registryToken != ""
}

// findCredentials looks for those of a registry, and of a repository in it,
// in the files that Docker and Podman keep them in. It never fails: without
// credentials the registry decides, and the note says what was wrong.
func findCredentials(ctx context.Context, authFile, registry, repository string) *credentials {
	notes := ""
	for _, name := range authFiles(authFile) {
		b, err := readSmall(name, maxAuthFile)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue
		}
		var file *authFileContent
		if err == nil {
			file, err = parseAuthFile(b)
		}
		if err != nil {
			notes = first(notes, name+" cannot be read: "+err.Error())
			continue
		}
		c, err := file.find(ctx, registry, repository)
		if err != nil {
			notes = first(notes, err.Error()+" (asked for by "+name+")")
		}
		if c != nil && c.found() {
			c.from = first(c.from, name)
			return c
		}
	}
	return &credentials{note: notes}
}

// authFiles lists where credentials may be: what was asked for, then Docker's,
// then Podman's (containers-auth.json(5)).
func authFiles(authFile string) []string {
	docker := os.Getenv("DOCKER_CONFIG")
	if docker == "" {
		docker = inHome(".docker")
	}
	run := os.Getenv("XDG_RUNTIME_DIR")
	if run == "" {
		run = filepath.Join("/run/containers", strconv.Itoa(os.Geteuid()))
	} else {
		run = filepath.Join(run, "containers")
	}
	var files []string
	for _, f := range []string{authFile, os.Getenv("REGISTRY_AUTH_FILE"), in(docker, "config.json"), in(run, "auth.json"),
		in(first(os.Getenv("XDG_CONFIG_HOME"), inHome(".config")), "containers/auth.json")} {
		if f != "" {
			files = append(files, f)
		}
	}
	return files
}

func in(dir, name string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, name)
}

// An authFileContent is the part of config.json or auth.json that is about
// credentials.
type authFileContent struct {
	Auths       map[string]authEntry `json:"auths"`
	CredsStore  string               `json:"credsStore"`
	CredHelpers map[string]string    `json:"credHelpers"`
}

type authEntry struct {
	Auth          string `json:"auth"` // base64 of USER:PASSWORD
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

func parseAuthFile(b []byte) (*authFileContent, error) {
	f := &authFileContent{}
	if err := json.Unmarshal(b, f); err != nil {
		return nil, err
	}
	return f, nil
}

// find looks in the order of Docker: a helper for the registry, the helper for
// all, the file itself.
func (f *authFileContent) find(ctx context.Context, registry, repository string) (*credentials, error) {
	key := registry
	if registry == "docker.io" {
		key = dockerIndex
	}
	var failed error
	for _, helper := range []string{first(f.CredHelpers[registry], f.CredHelpers[key]), f.CredsStore} {
		if helper == "" {
			continue
		}
		c, err := askHelper(ctx, helper, key)
		if err == nil && c != nil {
			return c, nil
		}
		failed = first2(failed, err)
	}
	if e, ok := f.entry(registry, repository); ok {
		c, err := e.credentials()
		return c, first2(err, failed)
	}
	return nil, failed
}

func first2(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// entry finds the most exact key: Podman's may go down to a repository; old
// ones of Docker are URLs.
func (f *authFileContent) entry(registry, repository string) (authEntry, bool) {
	for name := registry + "/" + repository; ; {
		if e, ok := f.Auths[name]; ok {
			return e, true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			break
		}
		name = name[:i]
	}
	for key, e := range f.Auths {
		if hostOf(key) == registry {
			return e, true
		}
	}
	return authEntry{}, false
}

// hostOf takes the registry out of a key that is a URL.
func hostOf(key string) string {
	scheme, rest, ok := strings.Cut(key, "://")
	if !ok || scheme != "https" && scheme != "http" {
		// "index.docker.io/v1/" was written too; other paths are Podman's
		rest = key
		if !strings.HasSuffix(strings.TrimRight(rest, "/"), "/v1") && !strings.HasSuffix(strings.TrimRight(rest, "/"), "/v2") {
			return ""
		}
	}
	host, _, _ := strings.Cut(rest, "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		return "docker.io"
	}
	return host
}

func (e authEntry) credentials() (*credentials, error) {
	c := &credentials{username: e.Username, password: e.Password, identityToken: e.IdentityToken, registryToken: e.RegistryToken}
	if e.Auth == "" {
		return c, nil
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(e.Auth))
	if err != nil {
		return c, errors.New("an auth is not base64")
	}
	name, password, ok := strings.Cut(string(b), ":")
	if !ok {
		return c, errors.New("an auth is not USER:PASSWORD")
	}
	c.username, c.password = name, strings.TrimRight(password, "\x00")
	if c.username == "<token>" {
		c.identityToken, c.username, c.password = first(c.identityToken, c.password), "", ""
	}
	return c, nil
}

// askHelper runs docker-credential-NAME get, which reads the registry's key
// and prints JSON (github.com/docker/docker-credential-helpers). No
// credentials and no error: it has none.
func askHelper(ctx context.Context, name, key string) (*credentials, error) {
	program := "docker-credential-" + name
	if strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
		return nil, fmt.Errorf("%.100q is no name of a credential helper", name)
	}
	ctx, cancel := context.WithTimeout(ctx, helperTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(key + "\n")
	out := &limited{most: maxHelperOut, full: cancel}
	cmd.Stdout = out
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("%s is not installed", program)
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s did not answer", program)
	case err != nil && strings.Contains(out.buffer.String(), "credentials not found"):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %s", program, err, clean(out.buffer.String()))
	}
	return parseHelper(program, out.buffer.Bytes())
}

func parseHelper(program string, out []byte) (*credentials, error) {
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("%s does not answer in JSON", program)
	}
	if answer.Username == "" && answer.Secret == "" {
		return nil, nil
	}
	if answer.Username == "<token>" {
		return &credentials{identityToken: answer.Secret, from: program}, nil
	}
	return &credentials{username: answer.Username, password: answer.Secret, from: program}, nil
}

// limited keeps what is written, and calls full when it is too much. The
// buffer is not embedded: its ReadFrom would let io.Copy pass by Write.
type limited struct {
	buffer bytes.Buffer
	most   int
	full   func()
}

func (l *limited) Write(p []byte) (int, error) {
	if l.buffer.Len()+len(p) > l.most {
		l.full()
		return 0, io.ErrShortBuffer
	}
	return l.buffer.Write(p)
}
