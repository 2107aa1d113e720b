// loop.go - a control loop in Go: 1 kHz, look-ups in a table, and garbage in each cycle.
//
// Why: it is an ordinary Go program, with the collector's threads and all, made dynamic by cgo, as most
// are that talk to hardware. It knows nothing of memory locking. It says `ready PID` once it runs,
// works until its standard input ends, then says how it went.
//
//	go build -o loop loop.go && ./loop
package main

/*
#include <time.h>

// The kernel's own sleep until a point in time; Go's timers are its scheduler's.
static void sleep_until(struct timespec *wake, long period_ns) {
	wake->tv_nsec += period_ns;
	if (wake->tv_nsec >= 1000000000) { wake->tv_nsec -= 1000000000; wake->tv_sec++; }
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, wake, 0);
}
static void now(struct timespec *at) { clock_gettime(CLOCK_MONOTONIC, at); }
*/
import "C"

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	period  = time.Millisecond
	entries = 512 * 1024
	logged  = 64
)

type loop struct {
	table        []float64
	log          [logged]string
	noise        uint32
	cycles, late int64
	worst        time.Duration
	stop         atomic.Bool
}

func newLoop() *loop {
	l := &loop{table: make([]float64, entries), noise: 1}
	for i := range l.table {
		l.table[i] = math.Sin(2 * math.Pi * float64(i) / entries)
	}
	return l
}

func (l *loop) measure() float64 {
	l.noise = l.noise*1664525 + 1013904223
	return float64(l.noise) / (1 << 32)
}

// One cycle: eight look-ups, and a line of a log that becomes garbage 64 cycles later.
func (l *loop) control() {
	command := 0.0
	for joint := 0; joint < 8; joint++ {
		command += l.table[int(l.measure()*entries)]
	}
	l.log[l.cycles%logged] = fmt.Sprintf("cycle %d command %f", l.cycles, command)
}

func (l *loop) run(done chan<- struct{}) {
	runtime.LockOSThread() // a thread of its own
	var wake C.struct_timespec
	C.now(&wake)
	for !l.stop.Load() {
		C.sleep_until(&wake, C.long(period))
		began := time.Now()
		l.control()
		if took := time.Since(began); took > l.worst {
			l.worst = took
		}
		if time.Since(began) > period {
			l.late++
		}
		l.cycles++
	}
	close(done)
}

func main() {
	l := newLoop()
	done := make(chan struct{})
	go l.run(done)
	fmt.Println("ready", os.Getpid())
	io.Copy(io.Discard, os.Stdin)
	l.stop.Store(true)
	<-done
	fmt.Println("cycles", l.cycles, "late", l.late, "worst_ns", l.worst.Nanoseconds())
}
