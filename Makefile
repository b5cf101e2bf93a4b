# make hello   build Kiste and run a container from an embedded image; needs no network
# make test    run every test; as root on Debian it first installs what they need
# make bench   measure against Debian's docker, podman, crun and runc
# The rest is told by HACKING.md.

export CGO_ENABLED = 0

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS  = -s -w -X kiste/cli.Version=$(VERSION) -X kiste/cli/oci.Version=$(VERSION)
BUILD    = go build -trimpath -ldflags "$(LDFLAGS)"
# What starts for every container, starts sooner: see internal/sys/entry.go and early.go, and without
# the collector that puts its marks into every span of memory, 25 pages more. A Go that does not know
# the word builds as it likes.
SMALLER := $(or $(GOEXPERIMENT),$(shell GOEXPERIMENT=nogreenteagc go env GOEXPERIMENT 2>/dev/null))
SOONER   = GOEXPERIMENT=$(SMALLER) go build -trimpath -ldflags "$(LDFLAGS) -E kiste/internal/sys.entry"
EARLY    = GOEXPERIMENT=$(SMALLER) go build -trimpath -ldflags "$(LDFLAGS) -E kiste/internal/sys.early"
# Then it is copied, as what is installed is: the linker writes through a mapping, which leaves it in
# the page cache in single pages, and to map those costs a tenth of a start. The first two megabytes,
# which are code that nearly all runs, are one write: the cache keeps that in pages as large as the file
# system can have. Constants follow in pieces: of those a start reads a few.
define copied
	for program in kiste kiste-runtime; do \
		(dd bs=2M count=1 status=none && dd bs=64k status=none) < $(BIN)/$$program > $(1)/.copy && \
		chmod 755 $(1)/.copy && mv $(1)/.copy $(1)/$$program || exit 1; \
	done
endef
PREFIX  ?= /usr/local
BIN     ?= bin
FUZZTIME ?= 2s
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: all build hello test check unit arm64 fuzz vm bench man install clean deps

all: build

build:
	$(BUILD) -o $(BIN)/ ./cmd/kisted
	$(SOONER) -o $(BIN)/ ./cmd/kiste
	$(EARLY) -o $(BIN)/ ./cmd/kiste-runtime
	$(call copied,$(BIN))

hello: build
	bin/kiste run --rm embedded:hello

test: deps check unit arm64 fuzz

deps:
	test/deps

check:
	@unformatted=$$(git ls-files '*.go' | grep -v ^vendor/ | xargs gofmt -l); \
	if [ -n "$$unformatted" ]; then echo "gofmt these: $$unformatted"; exit 1; fi
	go vet ./...
	CGO_ENABLED=0 go run $(STATICCHECK) ./...

unit: build
	go run ./test/unit

arm64:
	GOARCH=arm64 go vet ./...
	GOARCH=arm64 go build -o /dev/null ./cmd/...

fuzz:
	test/fuzz $(FUZZTIME)

vm:
	go test -count=1 -v -timeout 35m ./test/vm

bench: build
	test/bench/deps
	go run ./test/bench $(BENCHFLAGS)
	go run ./test/bench/oci $(BENCHFLAGS)
	go run ./test/bench/system
	go run ./test/bench/network
	go run ./test/bench/rootless
	go run ./test/bench/resolver

man: build
	mkdir -p bin/man
	bin/kiste man bin/man
	bin/kiste-runtime man bin/man

install: build man
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin bin/kisted
	$(call copied,$(DESTDIR)$(PREFIX)/bin)
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 bin/man/*.1
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 bin/man/*.8
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/systemd/user $(DESTDIR)$(PREFIX)/lib/systemd/system-generators $(DESTDIR)$(PREFIX)/lib/systemd/user-generators
	for dir in system user; do \
		sed 's|@PREFIX@|$(PREFIX)|' systemd/kiste-boot.service.in > $(DESTDIR)$(PREFIX)/lib/systemd/$$dir/kiste-boot.service && \
		sed -e 's|@PREFIX@|$(PREFIX)|' -e "s|@USER@ |$$(test $$dir = user && echo '--user ')|" systemd/kiste-generator.in > $(DESTDIR)$(PREFIX)/lib/systemd/$$dir-generators/kiste-generator && \
		chmod 755 $(DESTDIR)$(PREFIX)/lib/systemd/$$dir-generators/kiste-generator || exit 1; \
	done
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	for program in kiste kiste-runtime; do \
		bin/$$program completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$program && \
		bin/$$program completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_$$program && \
		bin/$$program completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/$$program.fish || exit 1; \
	done

clean:
	rm -rf bin test/cache
