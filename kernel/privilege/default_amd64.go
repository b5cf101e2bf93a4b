package privilege

import _ "embed"

const ownArch = "amd64"

// precompiled is the filter of the default profile for DefaultCaps. Its test
// makes it anew with -update.
//
//go:embed default_amd64.bpf
var precompiled string
