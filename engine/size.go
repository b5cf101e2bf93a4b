package engine

import "kiste/image/catalog"

// Sizes are how many bytes the container has written to its root, and how many
// it sees there with those of its image; 0 where the image is gone.
func (e *Engine) Sizes(c *Container) (written, all int64) {
	written = e.Written(c.ID)
	entry, err := catalog.Get(e.Store, c.ImageID)
	if c.ImageID == "" || err != nil {
		return written, 0
	}
	return written, written + entry.Size
}
