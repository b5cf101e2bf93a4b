package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/cli/option"
	"kiste/image/catalog"
	"kiste/image/reference"
	"kiste/store"
)

type imagesOptions struct {
	all, quiet, noTrunc, digests bool
	format                       string
	filters                      []string
}

func imagesCommand() *Command {
	var o imagesOptions
	return &Command{
		Name:  "images",
		Args:  "[REPOSITORY[:TAG]]",
		Short: "list the images that are here",
		Long: `Lists images, the newest first.

With --format each is shown as a template says, in which {{.ID}}, {{.Repository}}, {{.Tag}}, {{.Digest}}, {{.CreatedAt}}, {{.CreatedSince}}, {{.Size}} and {{.Platform}} stand for its values; "json" shows all of them. Without it the imagesFormat of docker's config.json counts.

Filters: ` + filterNames(imageFilters) + `. An image without a name is dangling.`,
		Examples: []string{"kiste images", "kiste images --filter 'reference=*/app:*'", "kiste images --format '{{.Repository}}:{{.Tag}} {{.Size}}'"},
		Options: []option.Row{
			{"-a, --all", "", "list all: Kiste hides none", option.Bool(&o.all)},
			{"-q, --quiet", "", "show IDs only", option.Bool(&o.quiet)},
			{"--no-trunc", "", "show IDs in full", option.Bool(&o.noTrunc)},
			{"--digests", "", "show digests, too", option.Bool(&o.digests)},
			{"--format", "TEXT", `show each as TEXT says, or "json"`, option.String(&o.format)},
			{"-f, --filter", "KEY=VALUE", "list only some; see above", option.Strings(&o.filters)},
		},
		Max: 1,
		Run: func(_ context.Context, env *Env, args []string) error {
			if len(args) == 1 {
				o.filters = append(o.filters, "reference="+args[0])
			}
			return listImages(env, o)
		},
	}
}

func listImages(env *Env, o imagesOptions) error {
	s := store.Locate()
	if err := s.Check(); err != nil {
		return err
	}
	if o.format == "" && !o.quiet {
		o.format = userFormat("imagesFormat")
	}
	if env.lacks(o.format) {
		return becomeKisted(env.words)
	}
	all, damaged := catalog.List(s)
	keep, err := choose(imageFilters, s, o.filters)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(e catalog.Entry) bool { return !keep.fit(&e) })
	slices.SortStableFunc(all, func(a, b catalog.Entry) int { return b.Created.Compare(a.Created) })
	if err := showImages(env, all, o); err != nil {
		return err
	}
	return damaged
}

func showImages(env *Env, all []catalog.Entry, o imagesOptions) error {
	if o.quiet && o.format == "" {
		return quietImages(env, all, o)
	}
	l := listing{format: o.format, table: `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`, row: imageRow{},
		headings: map[string]string{"ID": "IMAGE ID", "CreatedSince": "CREATED"}}
	if o.digests {
		l.table = strings.Replace(l.table, `{{.ID}}`, `{{.Digest}}\t{{.ID}}`, 1)
	}
	var rows []any
	for _, e := range all {
		rows = append(rows, imageFields(e, o.noTrunc))
	}
	return l.print(env, rows)
}

func quietImages(env *Env, all []catalog.Entry, o imagesOptions) error {
	seen := map[string]bool{}
	for _, e := range all {
		if id := imageFields(e, o.noTrunc).ID; !seen[id] {
			seen[id] = true
			fmt.Fprintln(env.Out, id)
		}
	}
	return nil
}

// imageRow is an image in Docker's words; its JSON is that of docker images
// --format json.
type imageRow struct {
	Containers, CreatedAt, CreatedSince, Digest, ID, Platform, Repository, SharedSize, Size, Tag, UniqueSize, VirtualSize string
}

func imageFields(e catalog.Entry, full bool) imageRow {
	r := imageRow{Repository: "<none>", Tag: "<none>", ID: e.ShortID(), Digest: "<none>", Size: DecimalSize(e.Size), VirtualSize: DecimalSize(e.Size),
		Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A", // Docker counts these for "system df" alone
		CreatedAt: e.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"), CreatedSince: age(e.Created, time.Now()), Platform: e.Platform}
	if full {
		r.ID = e.ID
	}
	if e.Root != "" {
		r.Digest = e.Root
	}
	if ref, err := reference.Parse(e.Name); err == nil {
		r.Repository = ref.FamiliarName()
		if ref.Tag != "" {
			r.Tag = ref.Tag
		}
	}
	return r
}

// DecimalSize shows bytes as docker images does: three digits, powers of 1000.
func DecimalSize(n int64) string { return decimal(n, 3) }

// FreedSize shows bytes as docker system df and its prunes do: four digits.
func FreedSize(n int64) string { return decimal(n, 4) }

func decimal(n int64, digits int) string {
	v, unit := float64(n), 0
	const units = "BkMGTPE"
	for v >= 999.5 && unit < len(units)-1 {
		v /= 1000
		unit++
	}
	text := strconv.FormatFloat(v, 'g', digits, 64)
	if unit == 0 {
		return text + "B"
	}
	return text + units[unit:unit+1] + "B"
}
