//go:build !amd64 && !arm64

package privilege

import "runtime"

const (
	ownArch     = runtime.GOARCH
	precompiled = ""
)
