package engine

import "kiste/container/process"

// A Named is a container that runs, as the resolver is told of it. It is void when
// the process has ended.
type Named struct {
	ID        string
	Process   process.Identity
	Places    []Place
	Servers   []string // its own; none: the host's
	Closed    bool     // nothing is asked outside
	Qualified bool     // its names of one label are not asked outside
}

// A Place is where a container is found, and finds others.
type Place struct {
	Network   string // its id
	Name      string
	Subnets   []string
	Names     []string // the container's own first; none: no names here
	Addresses []string
}
