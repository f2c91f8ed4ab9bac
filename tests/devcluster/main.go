// Package main is the development control plane: etcd, kube-apiserver and
// kube-controller-manager in one program, so that tests and the demo run
// against the real Kubernetes API without a container engine.
//
//	devcluster etcd|kube-apiserver|kube-controller-manager [flags of that program]
//
// A link of that name to the program works too. With DEVCLUSTER_WATCH_STDIN=1
// the program ends when its standard input closes, so that no process outlives
// the test run that started it, however that run ends.
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kcm "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

var programs = map[string]func(){
	"etcd":                    func() { etcdmain.Main(os.Args) },
	"kube-apiserver":          func() { os.Exit(cli.Run(apiserver.NewAPIServerCommand())) },
	"kube-controller-manager": func() { os.Exit(cli.Run(kcm.NewControllerManagerCommand())) },
}

func main() {
	run := programs[filepath.Base(os.Args[0])]
	if run == nil && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		run = programs[os.Args[0]]
	}
	if run == nil {
		fmt.Fprintln(os.Stderr, "usage: devcluster etcd|kube-apiserver|kube-controller-manager [flags]")
		os.Exit(2)
	}
	if os.Getenv("DEVCLUSTER_WATCH_STDIN") == "1" {
		go endWithStdin()
	}
	run()
}

// endWithStdin asks this process to stop once whoever holds the other end of standard input is gone.
func endWithStdin() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
}
