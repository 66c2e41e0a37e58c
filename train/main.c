/* train/main.c - the program isomoe. */
#include "train/command.h"

int main(int argc, char **argv) { return command_main(argc, argv); }
