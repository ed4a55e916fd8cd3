// SPDX-License-Identifier: GPL-2.0
/*
 * say - the kernel says what is written to /sys/module/say/parameters/line.
 *
 * What a program writes to /dev/kmsg is marked as a program's: the kernel lets
 * nobody else have facility 0. A test of what is read in the kernel's own
 * messages needs a kernel that says them.
 */
#include <linux/module.h>
#include <linux/moduleparam.h>

static int say(const char *text, const struct kernel_param *param)
{
	pr_err("%s\n", text);
	return 0;
}

static const struct kernel_param_ops say_ops = { .set = say };
module_param_cb(line, &say_ops, NULL, 0200);
MODULE_PARM_DESC(line, "printed as an error of the kernel");

static int __init say_init(void)
{
	return 0;
}

static void __exit say_exit(void)
{
}

module_init(say_init);
module_exit(say_exit);
MODULE_DESCRIPTION("Prints what it is given");
MODULE_LICENSE("GPL");
