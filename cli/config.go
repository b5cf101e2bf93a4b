package cli

import (
	"os"
	"path/filepath"

	"kiste/store"
)

// dockerConfig is what is read of the user's own config.json of the docker
// command: how listings are shown where --format does not say.
type dockerConfig struct {
	PsFormat      string `json:"psFormat"`
	ImagesFormat  string `json:"imagesFormat"`
	VolumesFormat string `json:"volumesFormat"`
}

// userFormat is the format that the user's config.json has for a listing, by
// its key there; "" without one, or with one that cannot be read.
func userFormat(key string) string {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".docker")
	}
	var c dockerConfig
	if store.ReadJSON(filepath.Join(dir, "config.json"), &c) != nil {
		return ""
	}
	switch key {
	case "psFormat":
		return c.PsFormat
	case "imagesFormat":
		return c.ImagesFormat
	case "volumesFormat":
		return c.VolumesFormat
	}
	return ""
}
