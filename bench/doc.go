// Package bench measures sockns where it has to be fast: with thousands of
// socket namespaces loaded, with real packets, cgroups and files. `make bench`
// runs it; docs/benchmarks.md has figures. Everything happens in network
// namespaces and cgroups of the benchmarks' own.
package bench
