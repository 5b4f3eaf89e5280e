package quantd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/quantd/quantd/clients/go/internal/servertest"
)

// goBlocks are the blocks of Go in README.md: a program, then pieces of the examples.
func goBlocks(t *testing.T) []string {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, found := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, found[1])
	}
	if len(blocks) != 5 {
		t.Fatalf("README.md has %d blocks of Go", len(blocks))
	}
	return blocks
}

func TestTheReadmeShowsTheExamples(t *testing.T) {
	examples, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := goBlocks(t)
	_, body, _ := strings.Cut(blocks[0], "func main() {\n")
	for _, block := range append(blocks[1:], body) {
		if !strings.Contains(string(examples), block) {
			t.Errorf("no example has\n%s", block)
		}
	}
}

func TestTheProgramOfTheReadmeRuns(t *testing.T) {
	server := servertest.StartAt(t, "127.0.0.1:0")
	server.WriteSmall(t, "smollm2", 1)
	program := strings.NewReplacer("127.0.0.1:50051", server.Address, "/models", server.Folder).Replace(goBlocks(t)[0])
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command("go", "run", file).CombinedOutput()
	if err != nil || !strings.Contains(string(output), "blk.0.attn_q.weight") ||
		!exists(server.Path("smollm2-Q4_K_M.gguf")) {
		t.Errorf("got %v\n%s", err, output)
	}
}
