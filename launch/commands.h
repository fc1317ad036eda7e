/* The subcommands: one file each (cmd_<name>.c), one row each in launch/commands.def. argv starts
 * after the name. A command prints results to standard output and returns a status; main prints the
 * message and sets the exit code. */
#ifndef TRM_LAUNCH_COMMANDS_H
#define TRM_LAUNCH_COMMANDS_H

#include "base/status.h"

#define TRM_COMMAND(name, every_rank, help) trm_status trm_cmd_##name(int argc, char **argv);
#include "launch/commands.def"
#undef TRM_COMMAND

#endif
