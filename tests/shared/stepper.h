/* Step a traced process one instruction at a time, between two breakpoints it has itself. Linux, x86-64. */
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
