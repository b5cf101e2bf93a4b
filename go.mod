module kiste

go 1.26.0

require (
	github.com/klauspost/compress v1.20.4
	github.com/opencontainers/runtime-spec v1.3.0
	golang.org/x/sys v0.50.0
	golang.org/x/tools v0.14.0
	rsc.io/script v0.0.2
)
