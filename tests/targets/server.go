// server.go - an HTTP server as people write them: net/http, one goroutine a connection, garbage for each request.
//
// It listens on a loopback port that the kernel chooses, says "ready PID PORT", and ends at the end of its input.
// GET /?text=T is answered with T, every letter turned.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

func turned(letter rune) rune {
	if letter >= 'a' && letter <= 'z' {
		return 'a' + (letter-'a'+13)%26
	}
	return letter
}

func answer(reply http.ResponseWriter, request *http.Request) {
	fmt.Fprint(reply, strings.Map(turned, request.URL.Query().Get("text")))
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	http.HandleFunc("/", answer)
	go http.Serve(listener, nil)
	fmt.Println("ready", os.Getpid(), listener.Addr().(*net.TCPAddr).Port)
	io.Copy(io.Discard, os.Stdin)
}
