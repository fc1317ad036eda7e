/* Attributes of sliding windows: a module takes nothing from the program but base/, so it has a
 * copy of its own. */
#include "kernels/reference/window.c" /* NOLINT(bugprone-suspicious-include) */
