// Package examples holds policies that are documentation and tests at once.
package examples
