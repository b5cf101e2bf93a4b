package heavy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"kiste/cli"
	"kiste/engine"
	"kiste/engine/fetch"
	"kiste/fault"
	"kiste/image/layer"
	"kiste/image/reference"
	"kiste/image/registry"
	"kiste/image/transport"
	"kiste/internal/sys"
	"kiste/store"
)

// pull is "kiste pull".
func pull(ctx context.Context, env *cli.Env, args []string, options any) error {
	o := options.(*cli.PullOptions)
	src, err := reference.ParseSource(args[0])
	if err == nil && o.AllTags {
		err = checkAllTags(args[0], src)
	}
	if err != nil {
		return err
	}
	where, how, done, err := unpacker(env)
	if done || err != nil {
		return err
	}
	style := cli.Auto
	switch {
	case o.JSON:
		style = cli.JSON
	case o.Quiet:
		style = cli.Silent
	}
	p := puller{env: env, style: style, store: where, options: fetch.Options{Platform: o.Platform, Jobs: int(o.Jobs), Policy: fetch.Policy(o.Policy),
		Layer: how, Transport: transport.Options{Registry: registry.Options{UserAgent: "kiste/" + cli.Version, AuthFile: o.AuthFile}}}}
	if o.AllTags {
		return p.all(ctx, src)
	}
	if style == cli.Auto && src.Transport == reference.Docker && !tagged(args[0], src.Ref) {
		fmt.Fprintln(env.Out, "Using default tag: latest")
	}
	r, err := p.one(ctx, src)
	if err == nil && style != cli.JSON {
		fmt.Fprintln(env.Out, name(r))
	}
	return err
}

// checkAllTags refuses a tag, as Docker does, and what is in no registry.
func checkAllTags(arg string, src reference.Source) error {
	why := ""
	switch {
	case src.Transport != reference.Docker:
		why = "--all-tags is for images in registries"
	case tagged(arg, src.Ref):
		why = "tag can't be used with --all-tags/-a"
	default:
		return nil
	}
	return &fault.Error{Op: "pull", On: arg, Kind: fault.Invalid, Err: errors.New(why)}
}

// tagged reports whether a name has a tag or a digest of its own.
func tagged(arg string, ref reference.Reference) bool {
	return ref.Digest != "" || strings.HasSuffix(arg, ":"+ref.Tag)
}

// A puller pulls and tells of it.
type puller struct {
	env     *cli.Env
	style   cli.Style
	store   store.Store
	options fetch.Options
}

func (p puller) one(ctx context.Context, src reference.Source) (fetch.Result, error) {
	if p.style == cli.Auto && src.Transport == reference.Docker {
		fmt.Fprintf(p.env.Out, "%s: Pulling from %s\n", src.Ref.Tag, src.Ref.Repository)
	}
	show, end := cli.Progress(p.env, p.style)
	o := p.options
	o.Progress = show
	r, err := fetch.Pull(ctx, p.store, src, o)
	end()
	if err == nil && p.style == cli.Auto {
		fmt.Fprintf(p.env.Out, "Digest: %s\nStatus: %s for %s\n", r.Root, status(r.Fresh), familiar(r.Name, src))
	}
	return r, err
}

// all pulls every tag of a repository. One that cannot be pulled, since it is
// no image perhaps, does not keep the others from it.
func (p puller) all(ctx context.Context, src reference.Source) error {
	tags, err := registry.Tags(ctx, src.Ref, p.options.Transport.Registry)
	if err != nil {
		return err
	}
	if len(tags) == 0 {
		return &fault.Error{Op: "pull", On: src.Ref.FamiliarName(), Kind: fault.NotFound, Err: errors.New("the repository has no tags")}
	}
	var all []error
	for _, tag := range tags {
		one := src
		one.Ref.Tag = tag
		if _, err := p.one(ctx, one); err != nil {
			all = append(all, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if p.style != cli.JSON {
		fmt.Fprintln(p.env.Out, src.Ref.Registry+"/"+src.Ref.Repository)
	}
	return errors.Join(all...)
}

func status(fresh bool) string {
	if fresh {
		return "Downloaded newer image"
	}
	return "Image is up to date"
}

func name(r fetch.Result) string {
	if r.Name != "" {
		return r.Name
	}
	return r.ID
}

func familiar(name string, src reference.Source) string {
	if ref, err := reference.Parse(name); err == nil {
		return ref.Familiar()
	}
	return src.String()
}

// importImage is "kiste import".
func importImage(ctx context.Context, env *cli.Env, args []string, options any) error {
	o := options.(*cli.ImportOptions)
	var canonical string
	if len(args) == 2 {
		var err error
		if canonical, err = newName(args[1]); err != nil {
			return err
		}
	}
	where, how, done, err := unpacker(env)
	if done || err != nil {
		return err
	}
	in, err := openTar(ctx, env, args[0])
	if err != nil {
		return err
	}
	defer in.Close()
	e, err := fetch.Import(ctx, where, in, fetch.ImportOptions{Name: canonical, Changes: o.Changes, Message: o.Message, Platform: o.Platform, Source: args[0], Layer: how})
	if err != nil {
		return err
	}
	fmt.Fprintln(env.Out, e.ID)
	return nil
}

// openTar opens standard input, what a URL leads to, or a file.
func openTar(ctx context.Context, env *cli.Env, where string) (io.ReadCloser, error) {
	if where == "-" && sys.IsTerminal(env.In) {
		return nil, &fault.Error{Op: "import image", On: where, Kind: fault.Invalid, Err: errors.New("standard input is a terminal"), Hint: "pipe a tar into it: … | kiste import - NAME"}
	}
	if where == "-" {
		return io.NopCloser(env.In), nil
	}
	if u, err := url.Parse(where); err != nil || u.Scheme != "http" && u.Scheme != "https" {
		f, err := os.Open(where)
		if err != nil {
			return nil, &fault.Error{Op: "import image", On: where, Err: err}
		}
		return f, nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, &fault.Error{Op: "import image", On: where, Kind: fault.Invalid, Err: err}
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, &fault.Error{Op: "import image", On: where, Kind: fault.Unavailable, Err: err}
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, &fault.Error{Op: "import image", On: where, Kind: fault.Unavailable, Err: fmt.Errorf("the server says %s", strings.TrimSpace(answer.Status))}
	}
	return answer.Body, nil
}

// gc is "kiste gc".
func gc(_ context.Context, env *cli.Env, _ []string, _ any) error {
	where, _, done, err := unpacker(env)
	if done || err != nil {
		return err
	}
	swept, err := (&engine.Engine{Store: where, Inside: os.Getenv(insideVariable) != ""}).Sweep()
	for _, id := range swept.Containers {
		fmt.Fprintf(env.Out, "Removed container: %s\n", id)
	}
	for _, name := range swept.Volumes {
		fmt.Fprintf(env.Out, "Removed volume: %s\n", name)
	}
	if err != nil {
		return err
	}
	f, err := fetch.GC(where)
	for _, id := range f.Images {
		fmt.Fprintf(env.Out, "Deleted: %s\n", id)
	}
	if err == nil {
		fmt.Fprintf(env.Out, "Freed %s: %d layers, %d blobs\n", cli.DecimalSize(f.Bytes), f.Layers, f.Blobs)
	}
	return err
}

// unpacker gives the store and how layers are written into it. An ordinary
// user's layers hold subordinate ids, so there it is all done by a child in a
// user namespace: done says that it was.
func unpacker(env *cli.Env) (s store.Store, how layer.Options, done bool, err error) {
	s = store.Locate()
	inside := os.Getenv(insideVariable)
	switch {
	case inside == "" && os.Geteuid() != 0:
		return s, how, true, inNamespace(env, s, nil)
	case inside != "":
		how = layer.Options{Userxattr: true, KeepOwner: inside == "single"}
	}
	sys.Umask(0) // modes are those of the image
	return s, how, false, nil
}
