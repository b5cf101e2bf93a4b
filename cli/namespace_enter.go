package cli

import (
	"context"

	"kiste/cli/option"
	"kiste/kernel/namespace"
)

func namespaceEnterCommand() *Command {
	var words []kindWord
	for _, k := range namespace.Kinds() {
		words = append(words, kindWord{kind: k})
	}
	var o namespace.EnterOptions
	return &Command{
		Name:  "namespace enter",
		Args:  "PID|NAME|FILE [COMMAND [ARG...]]",
		Short: "run a command in the namespaces of a process or a pin",
		Long: `Joins the namespaces and becomes the command, $SHELL without one. With no kinds
named it joins all in which the target differs from this process, and with a
pin's name all that were pinned. As with "namespace run" a parent stays only
for the kinds pid, time and user.`,
		Options: append(kindOptions(words, "only this kind and others named: "),
			option.Row{"--preserve-credentials, --keep-ids", "", "do not become root in a user namespace", option.Bool(&o.KeepIDs)}),
		Min:  1,
		Max:  -1,
		Rest: true,
		Examples: []string{
			"kiste namespace enter 4711",
			"kiste namespace enter --net 4711 ip address",
			"kiste namespace enter blue ip route",
		},
		Run: func(_ context.Context, _ *Env, args []string) error {
			targets, err := namespace.Targets(pins(), args[0], chosenKinds(words)...)
			if err != nil {
				return ended(0, err)
			}
			o.Args = args[1:]
			return ended(namespace.Enter(targets, o))
		},
	}
}

// chosenKinds are the kinds whose option is set.
func chosenKinds(words []kindWord) []namespace.Kind {
	var kinds []namespace.Kind
	for _, w := range words {
		if w.value == "true" {
			kinds = append(kinds, w.kind)
		}
	}
	return kinds
}
