// steps.go - says "ready PID", and does a step of work for each line: some garbage, and a reply.
//
// With cgo the line of import "C" makes it a dynamic program; without, that line is left out.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	fmt.Println("ready", os.Getpid())
	kept := make([][]byte, 16)
	lines := bufio.NewScanner(os.Stdin)
	for step := 0; lines.Scan(); step++ {
		kept[step%len(kept)] = make([]byte, 64*1024)
		fmt.Println("done", step)
	}
}
