GO ?= go

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

.PHONY: build
build: ## build bin/sockns
	$(GO) build -o bin/sockns ./cmd/sockns

.PHONY: tools
tools: # what the quickstart runs; root can install it
	@./e2e/tools.sh nft:nftables ip:iproute2 nsenter:util-linux

.PHONY: testtools
testtools: tools # and what the tests run
	@./e2e/tools.sh nginx:nginx python3:python3 dnsmasq:dnsmasq-base curl:curl dig:bind9-dnsutils psql:postgresql setpriv:util-linux chromium:chromium

.PHONY: quickstart
quickstart: tools build ## see it work, in a throw-away network namespace (root)
	$(GO) build -o bin/actor ./e2e/actor
	./examples/quickstart.sh

.PHONY: test
test: testtools ## all checks and tests; as root the kernel tests too
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w"; exit 1; }
	$(GO) vet ./...
	@if [ "$$(id -u)" = 0 ]; then \
		SOCKNS_REQUIRE_ROOT=1 $(GO) test -count=1 ./...; \
	else \
		echo "NOT ROOT: the tests that need the kernel are skipped"; $(GO) test -count=1 ./...; \
	fi

FLOWS ?= 1000000
SEED ?= 0

.PHONY: conform
conform: tools ## FLOWS random decisions on the kernel against the model (root; SEED repeats a run)
	SOCKNS_REQUIRE_ROOT=1 $(GO) test ./conform -run TestKernelDoesWhatThePolicySays -v -count=1 -timeout 3h -flows $(FLOWS) -seed $(SEED)

RACY = ./controller ./service ./api ./events ./metrics ./decisions ./nflog ./watch ./cgroup ./source

.PHONY: race
race: tools ## tests of all that has goroutines, with the race detector (root; cgo and gcc)
	SOCKNS_REQUIRE_ROOT=1 CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 30m $(RACY)

SOAK ?= 10m

.PHONY: soak
soak: tools ## SOAK long, everything happens at once to a controller with the race detector (root; cgo and gcc; SEED repeats a run)
	SOCKNS_REQUIRE_ROOT=1 CGO_ENABLED=1 $(GO) test ./e2e -run TestSoak -v -count=1 -timeout 3h -soak $(SOAK) -seed $(SEED) -soak.race

.PHONY: mutants
mutants: ## faults put into a copy of the compiler, and which test finds each
	$(GO) run ./conform/mutants

.PHONY: lint
lint: ## golangci-lint with .golangci.yml
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run ./...

.PHONY: clang
clang: # what compiles the cgroup-BPF programs: Debian bookworm's
	@./e2e/tools.sh clang-14:clang-14 llvm-strip-14:llvm-14 /usr/include/bpf/bpf_helpers.h:libbpf-dev

.PHONY: generate
generate: clang ## compile the cgroup-BPF programs anew
	$(GO) generate ./syscalls

.PHONY: generated
generated: clang ## hold the committed cgroup-BPF objects against their source
	SOCKNS_REQUIRE_CLANG=1 $(GO) test -count=1 -v -run TestObject ./syscalls

.PHONY: bench
bench: benchtools ## benchmarks (root), to docs/benchmarks.md; BENCH=packets: one part
	$(GO) run ./bench/report -only "$(BENCH)"

.PHONY: benchtools
benchtools: tools # and what benchmarks compare with
	@./e2e/tools.sh nginx:nginx wrk:wrk iperf3:iperf3 firewall-cmd:firewalld dbus-daemon:dbus-daemon

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
BINDIR = $(PREFIX)/bin
UNITDIR = $(PREFIX)/lib/systemd/system
BASHDIR = $(PREFIX)/share/bash-completion/completions
ZSHDIR = $(PREFIX)/share/zsh/site-functions
FISHDIR = $(PREFIX)/share/fish/vendor_completions.d

.PHONY: install
install: build ## install program, systemd unit, completions, /etc/sockns (PREFIX, DESTDIR)
	install -D -m 755 bin/sockns $(DESTDIR)$(BINDIR)/sockns
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	sed 's#@BINDIR@#$(BINDIR)#' systemd/sockns.service > $(DESTDIR)$(UNITDIR)/sockns.service
	bin/sockns completion bash > $(DESTDIR)$(BASHDIR)/sockns
	bin/sockns completion zsh > $(DESTDIR)$(ZSHDIR)/_sockns
	bin/sockns completion fish > $(DESTDIR)$(FISHDIR)/sockns.fish
	install -d -m 755 $(DESTDIR)$(SYSCONFDIR)/sockns
	install -m 644 examples/web-db.yaml $(DESTDIR)$(SYSCONFDIR)/sockns/policy.yaml.example
	@echo "put a policy into $(SYSCONFDIR)/sockns/*.yaml, then: systemctl enable --now sockns"

.PHONY: uninstall
uninstall: ## remove what install installed; policies stay, and so does what the kernel enforces (sockns delete)
	rm -f $(DESTDIR)$(BINDIR)/sockns $(DESTDIR)$(UNITDIR)/sockns.service $(DESTDIR)$(BASHDIR)/sockns \
		$(DESTDIR)$(ZSHDIR)/_sockns $(DESTDIR)$(FISHDIR)/sockns.fish $(DESTDIR)$(SYSCONFDIR)/sockns/policy.yaml.example
	-@rmdir $(DESTDIR)$(SYSCONFDIR)/sockns 2>/dev/null || true

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
