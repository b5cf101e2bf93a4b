// Package naming is the resolver of a store: the service that answers for names
// in all its containers.
//
//	takes    the documents of run/names, as package engine writes them
//	gives    Serve
//	touches  sockets in the containers' namespaces, through container/resolver
//	state    none
//
// How it is told and how long it lives is package engine/serving's.
package naming

import (
	"context"
	"errors"
	"net/netip"

	"kiste/container/process"
	"kiste/container/resolver"
	"kiste/engine"
	"kiste/engine/serving"
	"kiste/fault"
	"kiste/store"
)

// Serve is the resolver. It returns when no container has names any more, or
// with ctx.
func Serve(ctx context.Context, e *engine.Engine) error {
	var s *serving.Server[resolver.Container]
	r := resolver.New(resolver.Options{Ended: func(c resolver.Container) { s.Ended(c.ID, c.Process) }})
	defer r.Close()
	read := func(id string) (resolver.Container, process.Identity, error) {
		n := &engine.Named{}
		if err := store.ReadJSON(e.Document(engine.Resolver, id), n); err != nil {
			return resolver.Container{}, process.Identity{}, err
		}
		c, err := translate(n)
		return c, n.Process, err
	}
	s, err := serving.New(e, engine.Resolver, serving.Options[resolver.Container]{Read: read, Set: r.Set})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// translate makes a document the resolver's.
func translate(n *engine.Named) (resolver.Container, error) {
	c := resolver.Container{ID: n.ID, Process: n.Process, Closed: n.Closed, Qualified: n.Qualified}
	var err error
	if c.Servers, err = parsed(n.Servers, netip.ParseAddr); err != nil {
		return c, err
	}
	for _, p := range n.Places {
		a := resolver.Attachment{Network: p.Network, Name: p.Name, Names: p.Names}
		var err1, err2 error
		a.Addresses, err1 = parsed(p.Addresses, netip.ParseAddr)
		a.Subnets, err2 = parsed(p.Subnets, netip.ParsePrefix)
		if err := errors.Join(err1, err2); err != nil {
			return c, err
		}
		c.Attachments = append(c.Attachments, a)
	}
	return c, nil
}

func parsed[T any](texts []string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, t := range texts {
		v, err := parse(t)
		if err != nil {
			return nil, &fault.Error{Op: "read what the resolver is told", Kind: fault.Invalid, Err: err}
		}
		out = append(out, v)
	}
	return out, nil
}
