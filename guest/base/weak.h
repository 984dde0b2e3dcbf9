/*
 * Included before everything else: what the library uses of the C library it refers to weakly and, because it is
 * linked without it, without a symbol version. So it loads into any image: whichever C library the process has
 * fills the names in. A process that never uses verbs never calls one of them.
 *
 * tests/guest/test_interposition.py keeps the list complete, and to names that every C library has.
 */
#ifndef MIGRRDMA_WEAK_H
#define MIGRRDMA_WEAK_H

#pragma weak __errno_location
#pragma weak access
#pragma weak calloc
#pragma weak clock_gettime
#pragma weak close
#pragma weak connect
#pragma weak dl_iterate_phdr
#pragma weak epoll_create1
#pragma weak epoll_ctl
#pragma weak eventfd
#pragma weak fcntl
#pragma weak free
#pragma weak getenv
#pragma weak getpid
#pragma weak ioctl
#pragma weak kill
#pragma weak malloc
#pragma weak memchr
#pragma weak memcmp
#pragma weak memcpy
#pragma weak memmove
#pragma weak memset
#pragma weak nanosleep
#pragma weak open
#pragma weak poll
#pragma weak posix_memalign
#pragma weak prctl
#pragma weak read
#pragma weak readlink
#pragma weak recv
#pragma weak sched_yield
#pragma weak send
#pragma weak sigaction
#pragma weak sigfillset
#pragma weak sigprocmask
#pragma weak snprintf
#pragma weak socket
#pragma weak strchr
#pragma weak strcmp
#pragma weak strcpy
#pragma weak strerror
#pragma weak strlen
#pragma weak strncmp
#pragma weak strrchr
#pragma weak strstr
#pragma weak syscall
#pragma weak sysconf
#pragma weak time
#pragma weak vsnprintf
#pragma weak write

#endif
