package main

import (
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // the JSON log format
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // the version metric
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func runAPIServer() int { return runKubernetes(apiserver.NewAPIServerCommand) }

func runControllerManager() int {
	return runKubernetes(controllermanager.NewControllerManagerCommand)
}

// runKubernetes runs an upstream command as if its own binary had been called:
// it reads its flags, and the name in its user agent, from os.Args.
func runKubernetes(command func() *cobra.Command) int {
	os.Args = os.Args[1:]
	return cli.Run(command())
}
