module kiste

go 1.26.0

require (
	github.com/klauspost/compress v1.20.4 // indirect
	github.com/opencontainers/runtime-spec v1.3.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
	golang.org/x/tools v0.14.0 // indirect
	rsc.io/script v0.0.2 // indirect
)
