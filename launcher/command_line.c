#include "command_line.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/*
 * The same rules as in shim/argv.py, less everything that could be read in two ways: options without a value are taken
 * only by the names below, an option by fewer letters than it has, or several in one word, not at all.
 */

/* One list per kind of word; each ends with NULL. */
static const char *const global_flags[] = { "debug", "systemd-cgroup", NULL };
static const char *const global_values[] = { "log", "log-format", "root", "rootless", "criu", "cgroup-manager", NULL };

/* An answer to one of these is the low-level runtime's own text. */
static const char *const questions[] = { "--help", "-h", "--version", "-v", NULL };

static const char *const passed_commands[] = { "events", "features", "help",  "kill",  "list",   "pause", "ps",
					       "resume", "spec",     "state", "update", NULL };

static const char *const create_values[] = { "b", "bundle", "console-socket", "pid-file", "pidfd-socket",
					     "preserve-fds", NULL };
static const char *const create_flags[] = { "-d", "--detach", "--keep", "--no-new-keyring", "--no-pivot",
					    "--no-subreaper", NULL };

static const char *const exec_values[] = { "additional-gids", "apparmor", "cap",   "cgroup",	   "console-socket", "cwd",
					   "env",	      "e",	  "p",	   "pid-file",	   "pidfd-socket",   "preserve-fds",
					   "process",	      "process-label", "u", "user",	   NULL };
static const char *const exec_flags[] = { "-d", "--detach", "--ignore-paused", "--no-new-privs", "-t", "--tty", NULL };

static const char *const no_values[] = { NULL };
static const char *const delete_flags[] = { "-f", "--force", NULL };
static const char *const no_flags[] = { NULL };

struct option {
	const char *name;
	size_t length; /* of the name */
	const char *value; /* what stands behind the '='; NULL if there is none */
};

static bool contains(const char *const *list, const char *word, size_t length)
{
	for (; *list; list++)
		if (strlen(*list) == length && !memcmp(*list, word, length))
			return true;
	return false;
}

static bool is(struct option option, const char *name)
{
	return strlen(name) == option.length && !memcmp(option.name, name, option.length);
}

/* "" and "-" are no options. */
static bool is_option(const char *arg)
{
	return arg[0] == '-' && arg[1];
}

/* Split -NAME, --NAME, -NAME=VALUE or --NAME=VALUE; more dashes than two leave a name that is in no list. */
static struct option split(const char *arg)
{
	const char *name = arg + (arg[1] == '-' ? 2 : 1);
	const char *equals = strchr(name, '=');

	return (struct option){
		.name = name,
		.length = equals ? (size_t)(equals - name) : strlen(name),
		.value = equals ? equals + 1 : NULL,
	};
}

/* Take the value from the next argument if it is not attached; whether there is one. */
static bool take_value(struct option *option, char *const **args)
{
	if (option->value)
		return true;
	option->value = *++*args;
	return option->value;
}

/* Read the options before the command; return where it stands, or NULL if that is not certain. */
static char *const *skip_globals(char *const *args, struct command_line *line)
{
	for (; *args && is_option(*args); args++) {
		if (!strcmp(*args, "--"))
			return args + 1;
		struct option option = split(*args);
		if (contains(global_values, option.name, option.length)) {
			if (!take_value(&option, &args))
				return NULL;
			if (is(option, "root"))
				line->root = option.value;
		} else if (!contains(global_flags, option.name, option.length)) {
			return NULL;
		}
	}
	return args;
}

static bool is_plain_id(const char *id)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-.";

	return *id && !id[strspn(id, allowed)] && strcmp(id, ".") && strcmp(id, "..");
}

/* Read the options and the container's ID behind create, run, exec, delete or start; whether all of it is certain. */
static bool read_command(char *const *args, struct command_line *line)
{
	bool execs = line->kind == COMMAND_EXECS, ended = false;
	const char *const *values = execs ? exec_values : create_values;
	const char *const *flags = execs ? exec_flags : create_flags;

	if (line->kind == COMMAND_DELETES || line->kind == COMMAND_STARTS) {
		values = no_values;
		flags = line->kind == COMMAND_DELETES ? delete_flags : no_flags;
	}

	for (; *args; args++) {
		if (!ended && !strcmp(*args, "--")) {
			ended = true;
		} else if (ended || !is_option(*args)) {
			if (line->id)
				return false; /* create, run, delete and start take one */
			line->id = *args;
			if (execs)
				break; /* what follows is the container's command */
		} else {
			struct option option = split(*args);
			if (contains(values, option.name, option.length)) {
				if (!take_value(&option, &args))
					return false;
				if (is(option, "b") || is(option, "bundle"))
					line->bundle = option.value;
			} else if (!contains(flags, *args, strlen(*args))) {
				return false;
			}
		}
	}
	return line->id && is_plain_id(line->id);
}

struct command_line command_line_read(char *const *args)
{
	struct command_line line = { .kind = COMMAND_UNCERTAIN };
	char *const *command = skip_globals(args, &line);

	if (!command) {
		/* Only where it is the first word: as the value of an option it would mean something else. */
		if (contains(questions, *args, strlen(*args)))
			line.kind = COMMAND_PASSES;
		return line;
	}
	if (!*command || contains(passed_commands, *command, strlen(*command))) {
		line.kind = COMMAND_PASSES;
		return line;
	}
	if (!strcmp(*command, "create") || !strcmp(*command, "run"))
		line.kind = COMMAND_CREATES;
	else if (!strcmp(*command, "exec"))
		line.kind = COMMAND_EXECS;
	else if (!strcmp(*command, "delete"))
		line.kind = COMMAND_DELETES;
	else if (!strcmp(*command, "start"))
		line.kind = COMMAND_STARTS;
	else
		return line;
	if (!read_command(command + 1, &line))
		line.kind = COMMAND_UNCERTAIN;
	return line;
}
