# debhelper's sequence add-on of leftovers: dh --with leftovers, or Build-Depends: dh-sequence-leftovers

use strict;
use warnings;

# What is added to a prerm or postrm last runs first. So this is the last command before the scripts are put together:
# after dh_installinit, dh_installsystemd and (from compat 14 on it stops units too) dh_installsystemduser, whatever the
# compat level calls them, and after the add-ons that stand beside these.
insert_before('dh_installdeb', 'dh_leftovers');

1;
