/* Stop a traced process after any instruction, between two breakpoints it has itself. Linux, x86-64. */
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>

#define TRAP() __asm__ volatile("int3")

void trap(void) { TRAP(); }

int decide(int (*admit_at)(void *, uint32_t, uint32_t, int64_t), void *lane, uint32_t user, uint32_t srv, int64_t now)
{
    TRAP();
    int outcome = admit_at(lane, user, srv, now);
    TRAP();
    return outcome;
}

void trace_me(void) { ptrace(PTRACE_TRACEME, 0, 0, 0); }

/* Step until `n` instructions inside [begin, end) are done; returns how many, fewer where the second breakpoint came. */
long step(pid_t pid, long n, uint64_t begin, uint64_t end)
{
    long done = 0;
    int status;
    while (done < n) {
        uint64_t at = (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), 0);
        if ((ptrace(PTRACE_PEEKTEXT, pid, at, 0) & 0xff) == 0xcc) return done;
        if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0)) return -1;
        if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) return -1;
        done += begin <= at && at < end;
    }
    return done;
}

/* Note the address of every instruction inside [begin, end) up to the second breakpoint; returns how many. */
long trail(pid_t pid, uint64_t begin, uint64_t end, uint64_t *addresses, long most)
{
    long found = 0;
    int status;
    for (;;) {
        uint64_t at = (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), 0);
        if ((ptrace(PTRACE_PEEKTEXT, pid, at, 0) & 0xff) == 0xcc) return found;
        if (begin <= at && at < end) {
            if (found == most) return -1;
            addresses[found++] = at;
        }
        if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0)) return -1;
        if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) return -1;
    }
}

/* Run at full speed until the instruction at `address` is about to be done for the `times`-th time; 0 if it came. */
int arrive(pid_t pid, uint64_t address, long times)
{
    int status;
    long text = ptrace(PTRACE_PEEKTEXT, pid, address, 0), seen = 0;
    if ((uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), 0) == address) seen = 1;
    while (seen < times) {
        if (seen) { /* step over it before the breakpoint is put back */
            if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0)) return -1;
            if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) return -1;
            if ((uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), 0) == address) {
                seen++;
                continue;
            }
        }
        ptrace(PTRACE_POKETEXT, pid, address, (text & ~0xffL) | 0xcc);
        if (ptrace(PTRACE_CONT, pid, 0, 0)) return -1;
        if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) return -1;
        ptrace(PTRACE_POKETEXT, pid, address, text);
        uint64_t at = (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), 0);
        if (at != address + 1) return -2;
        ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.rip), address);
        seen++;
    }
    return 0;
}

/* Run until `n` system calls have begun or ended, or the second breakpoint has come; returns how many. */
long calls(pid_t pid, long n)
{
    int status;
    long done = 0;
    ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD);
    while (done < n) {
        if (ptrace(PTRACE_SYSCALL, pid, 0, 0)) return -1;
        if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) return -1;
        if (WSTOPSIG(status) == SIGTRAP) return done;
        done += WSTOPSIG(status) == (SIGTRAP | 0x80);
    }
    return done;
}
