package fetch

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"kiste/fault"
	"kiste/image/layer"
	"kiste/image/snapshot"
	"kiste/image/source"
	"kiste/progress"
	"kiste/store"
)

const (
	aheadChunks = 4
	aheadSize   = 256 << 10 // bytes
)

// A partial is the file of a blob on its way, locked by this process.
type partial struct {
	file *os.File
	lock *store.Lock
}

func (p *partial) close() {
	p.file.Close()
	p.lock.Unlock()
}

// openPartial waits until this process alone writes the blob. The one before
// may have finished and renamed what we waited for: then the name is another
// file's.
func openPartial(s store.Store, digest string) (*partial, error) {
	path := s.Partial(digest)
	for {
		lock, err := store.LockFile(path, true)
		if err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil && lock.Holds(path) {
			return &partial{f, lock}, nil
		}
		if err == nil {
			f.Close()
		}
		lock.Unlock()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
}

// layer downloads and unpacks one layer, or waits for somebody who does.
func (p *puller) layer(ctx context.Context, j *job) error {
	part, err := openPartial(p.s, j.layer.Digest)
	if err != nil {
		return err
	}
	defer part.close()
	if present(p.layers, j.layer.DiffID, p.boot) {
		j.key = j.layer.DiffID
		p.dropEmpty(part, j)
		p.o.Progress.Report(progress.Event{ID: j.layer.Digest, Phase: progress.Present})
		return nil
	}
	err = p.unpack(ctx, part, j)
	if fault.KindOf(err) == fault.Invalid && ctx.Err() == nil && j.resumed {
		// what was here before may be what is damaged: once more, from nothing
		if err := errors.Join(part.file.Truncate(0), removeFile(p.s.Blob(j.layer.Digest))); err != nil {
			return err
		}
		err = p.unpack(ctx, part, j)
	}
	if fault.KindOf(err) == fault.Invalid {
		os.Remove(p.s.Partial(j.layer.Digest))
	}
	if err != nil {
		return err
	}
	p.o.Progress.Report(progress.Event{ID: j.layer.Digest, Phase: progress.Done, Done: j.layer.Size, Total: j.layer.Size})
	return nil
}

func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// dropEmpty removes the partial file that only served as lock.
func (p *puller) dropEmpty(part *partial, j *job) {
	if st, err := part.file.Stat(); err == nil && st.Size() == 0 {
		os.Remove(p.s.Partial(j.layer.Digest))
	}
}

// unpack makes the layer of its blob, which is here, or partly, or comes.
func (p *puller) unpack(ctx context.Context, part *partial, j *job) error {
	in, err := p.stream(ctx, part, j)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(p.layers.Dir, ".tmp-*")
	if err != nil {
		in.close()
		return err
	}
	m, err := p.apply(ctx, in, temp, j)
	in.close()
	if err == nil && !in.whole {
		err = os.Rename(p.s.Partial(j.layer.Digest), p.s.Blob(j.layer.Digest))
	} else if err == nil {
		p.dropEmpty(part, j)
	}
	switch {
	case err != nil:
	case len(m.Implied) > 0 && j.chain != j.layer.DiffID:
		j.temp, j.meta = temp, m
		return nil
	default:
		m.Key = j.layer.DiffID
		if err = commit(p.layers, temp, m); err == nil {
			j.key = m.Key
			return nil
		}
	}
	return errors.Join(err, os.RemoveAll(temp))
}

// apply unpacks into temp/diff and compares the digests.
func (p *puller) apply(ctx context.Context, in *stream, temp string, j *job) (snapshot.Metadata, error) {
	m := snapshot.Metadata{Schema: 1, DiffID: j.layer.DiffID, Boot: p.boot}
	// MkdirTemp makes 0700, and a set-group-ID store would hand its bit down
	if err := errors.Join(os.Chmod(temp, 0o711), os.Mkdir(filepath.Join(temp, "diff"), 0o755), os.Chmod(filepath.Join(temp, "diff"), 0o755)); err != nil {
		return m, err
	}
	r, err := layer.Apply(ctx, in, filepath.Join(temp, "diff"), p.o.Layer)
	if fault.KindOf(err) == fault.Invalid {
		// the blob's own digest tells better what is wrong
		if _, blobErr := io.Copy(io.Discard, in); blobErr != nil {
			return m, blobErr
		}
	}
	if err != nil {
		return m, err
	}
	if r.DiffID != j.layer.DiffID {
		return m, invalid("%s unpacks to %s, and the image's config says %s", j.layer.Digest, r.DiffID, j.layer.DiffID)
	}
	m.Size, m.Entries, m.Implied, m.Skipped = r.Size, r.Entries, r.Implied, r.Skipped
	return m, nil
}

// A stream is a blob's compressed content, verified at its end.
type stream struct {
	io.Reader
	whole  bool // it was all here
	cancel context.CancelFunc
	ahead  *layer.Ahead
	from   io.Closer
	old    io.Closer
}

func (s *stream) close() {
	s.cancel()
	s.ahead.Close()
	s.from.Close()
	if s.old != nil {
		s.old.Close()
	}
}

// stream opens the blob: the file of it, or what is here of it and then the
// rest from its source, which is written down as it comes.
func (p *puller) stream(ctx context.Context, part *partial, j *job) (*stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	event := progress.Event{ID: j.layer.Digest, Phase: progress.Downloading, Total: j.layer.Size}
	blob, err := os.Open(p.s.Blob(j.layer.Digest))
	if err == nil {
		event.Phase, j.resumed = progress.Unpacking, true
		in, err := source.Open(ctx, fileSource{blob}, j.layer.Descriptor, nil)
		if err != nil {
			cancel()
			blob.Close()
			return nil, err
		}
		ahead := layer.ReadAhead(progress.Reader(io.TeeReader(in, p.flush), p.o.Progress, event), aheadChunks, aheadSize, nil)
		return &stream{Reader: ahead, whole: true, cancel: cancel, ahead: ahead, from: in, old: blob}, nil
	}
	st, err := part.file.Stat()
	if err != nil {
		cancel()
		return nil, err
	}
	have := st.Size()
	if have > j.layer.Size { // not of this blob
		have = 0
		err = part.file.Truncate(0)
	}
	j.resumed = have > 0
	var rest io.ReadCloser
	if err == nil {
		rest, err = source.Open(ctx, p.from, j.layer.Descriptor, io.NewSectionReader(part.file, 0, have))
	}
	if err == nil {
		_, err = part.file.Seek(have, io.SeekStart)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	event.Done = have
	coming := progress.Reader(io.TeeReader(rest, io.MultiWriter(part.file, p.flush)), p.o.Progress, event)
	ahead := layer.ReadAhead(io.MultiReader(io.NewSectionReader(part.file, 0, have), coming), aheadChunks, aheadSize, nil)
	return &stream{Reader: ahead, cancel: cancel, ahead: ahead, from: rest}, nil
}

// A fileSource has one blob, in a file.
type fileSource struct{ f *os.File }

func (fileSource) Root(context.Context) (source.Descriptor, []byte, error) {
	return source.Descriptor{}, nil, fault.Unsupported
}

func (fileSource) Manifest(context.Context, source.Descriptor) ([]byte, error) {
	return nil, fault.Unsupported
}

func (s fileSource) Blob(_ context.Context, d source.Descriptor, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(s.f, offset, d.Size+1)), nil
}

func (fileSource) Close() error { return nil }
