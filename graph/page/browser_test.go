package page

import (
	"bytes"
	"context"
	"flag"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sockns/sockns/e2e/roottest"
	"github.com/sockns/sockns/graph"
)

var update = flag.Bool("update", false, "write the screenshots of docs/")

// browse runs headless Chromium on a page and returns what it prints.
func browse(t *testing.T, html []byte, hash string, args ...string) []byte {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		roottest.Miss(t, "chromium: make testtools")
	}
	file := filepath.Join(t.TempDir(), "graph.html")
	if err := os.WriteFile(file, html, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, append([]string{
		"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
		"--host-resolver-rules=MAP * ~NOTFOUND", "--user-data-dir=" + t.TempDir(),
	}, append(args, "file://"+file+"#"+hash)...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, said.Bytes())
	}
	return out
}

func page(t *testing.T, g *graph.Graph) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestInteraction runs testdata/interaction.js in the page: it clicks, types
// and presses keys, and says what is not as it should be.
func TestInteraction(t *testing.T) {
	script, err := os.ReadFile("testdata/interaction.js")
	if err != nil {
		t.Fatal(err)
	}
	html := bytes.Replace(page(t, liveShop(t)), []byte("</body>"), append(append([]byte("<script>"), script...), "</script></body>"...), 1)
	dom := string(browse(t, html, "q=5432", "--window-size=1400,900", "--dump-dom"))
	_, report, ok := strings.Cut(dom, `<pre id="report">`)
	if !ok {
		t.Fatalf("the script did not end:\n%s", dom[max(0, len(dom)-3000):])
	}
	report, _, _ = strings.Cut(report, "</pre>")
	checks := 0
	for _, line := range strings.Split(strings.TrimSpace(report), "\n") {
		checks++
		if !strings.HasPrefix(line, "ok ") {
			t.Error(line)
		}
	}
	if checks < 20 {
		t.Errorf("only %d checks:\n%s", checks, report)
	}
}

// TestScreenshots draws the pages of docs/. They have to show something, and
// with -update they are written there.
func TestScreenshots(t *testing.T) {
	large := liveFleet(t)
	for _, s := range []struct {
		name, size, hash string
		g                *graph.Graph
	}{
		{"graph-10.png", "1400,760", "theme=light", liveShop(t)},
		{"graph-500.png", "1600,1100", "theme=light&select=order-api", large},
	} {
		t.Run(s.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), s.name)
			browse(t, page(t, s.g), s.hash, "--window-size="+s.size, "--screenshot="+file)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			checkPicture(t, data)
			if *update {
				if err := os.WriteFile("../../docs/"+s.name, smaller(t, data), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// smaller rounds colours, for a file of half the size.
func smaller(t *testing.T, data []byte) []byte {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	out := image.NewNRGBA(img.Bounds())
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			c := color.NRGBAModel.Convert(img.At(x, y)).(color.NRGBA)
			out.SetNRGBA(x, y, color.NRGBA{R: c.R | 15, G: c.G | 15, B: c.B | 15, A: 255})
		}
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checkPicture looks for ink in each part of the map.
func checkPicture(t *testing.T, data []byte) {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	box := img.Bounds()
	background := img.At(4, box.Dy()-60)
	for part := range 3 {
		from, ink := 20+part*(box.Dx()-400)/3, 0
		for x := from; x < from+(box.Dx()-400)/3; x++ {
			for y := 60; y < box.Dy()-40; y++ {
				if img.At(x, y) != background {
					ink++
				}
			}
		}
		if ink < 2000 {
			t.Errorf("part %d of the map has %d pixels of ink", part, ink)
		}
	}
}
