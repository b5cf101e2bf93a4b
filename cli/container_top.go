package cli

func topCommand() *Command {
	return &Command{
		Name: "top", Args: "CONTAINER [PS-OPTION...]", Min: 1, Max: -1, Rest: true,
		Short: "show the processes of a container",
		Long: `The host's ps is asked, with the options given or with -ef, and what it says of other processes is left out. Process IDs are the host's. Nothing of the container is executed.

Without a cgroup of its own, a container's processes are those of its pid namespace.`,
		Examples: []string{"kiste top web", "kiste top web -o pid,rss,args"},
		Complete: "container",
		Heavy:    "top",
	}
}

// Processes are the processes of a container that runs, as the host numbers
// them.
func Processes(name string) ([]int, error) {
	e, err := lookIntoStore()
	if err != nil {
		return nil, err
	}
	return e.Processes(name)
}
