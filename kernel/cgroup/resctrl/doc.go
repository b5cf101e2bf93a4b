// Package resctrl limits how much of the processor's cache and of the memory's
// bandwidth a group of processes gets: Intel's RDT, AMD's QoS and Arm's MPAM,
// in the kernel's one file system for them.
//
//	takes    OCI's intelRdt, and what the host has of it
//	gives    Steps as data, a Class to update, read and remove
//	touches  files of a resctrl file system
//	state    the kernel's; a Class is plain data and can be kept anywhere
//
// A directory of the file system is a class of service. Its file schemata says
// which parts of each cache it may fill and how much of the bandwidth it gets,
// its file tasks who is in it; a directory in mon_groups counts for some of them.
// Children are born into their parents' class. There are few classes, a
// processor has 4 to 16, so containers share them: closID.
//
// By hand it is
//
//	mount -t resctrl resctrl /sys/fs/resctrl; mkdir /sys/fs/resctrl/web
//	echo "L3:0=ff" > /sys/fs/resctrl/web/schemata; echo $$ > /sys/fs/resctrl/web/tasks
//
// It stands beside cgroups, with which it shares the question and not the
// tree. Needs root. Safe for concurrent use as far as the kernel is. Sources:
// Documentation/filesystems/resctrl.rst; runtime-spec 1.3, "IntelRdt".
package resctrl
